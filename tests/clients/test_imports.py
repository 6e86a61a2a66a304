"""The real clients and each way to import an image, into files, S3 and Swift at once."""

import hashlib
import json
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev.barbican import Barbican
from dev.keystone import Keystone
from diptych_common import migrations

from tests import databases
from tests.clients.clouds import Cloud, CommandFailed, PasswordCloud, rows
from tests.clients.conftest import MIB, Polled, Site, by_keystone, make_region
from tests.daemon import Daemon
from tests.images import signing
from tests.images.service import OCTETS, configuration

# A directory, a bucket, a container; and what the image says when it is in all of them.
STORES = ("objects", "one", "fast")
IN_ALL = "fast,objects,one"
QCOW2 = {"disk_format": "qcow2", "container_format": "bare"}
FORMATS = ("--disk-format=qcow2", "--container-format=bare")


def has_ended(shown: dict[str, Any]) -> bool:
    """As Tempest and Nova see that all stores were seen to; and another import may begin."""
    is_done = shown.get("os_glance_importing_to_stores") == ""
    return is_done and "os_glance_import_task" not in shown


@dataclass(frozen=True)
class Elsewhere:
    """Another region's image service, and images there: `odd` is of a format of its own."""

    region: str
    image: str
    odd: str


@pytest.fixture(scope="session")
async def _daemon_elsewhere(
    keystone: Keystone, postgres_url: str, client_folder: Path
) -> AsyncGenerator[Daemon]:
    database = await databases.create(postgres_url)
    await migrations.upgrade(database, "diptych_images.migrations")
    options = {
        "DEFAULT__WORKERS": "1",
        "IMAGE_FORMAT__DISK_FORMATS": "qcow2, odd",
        **by_keystone(keystone),
    }
    folder = client_folder / "elsewhere"
    daemon = Daemon(configuration(database, folder, **options), client_folder / "elsewhere.log")
    daemon.start()
    yield daemon
    assert daemon.stop() == 0
    await databases.drop(database)


@pytest.fixture(scope="session")
def elsewhere(keystone: Keystone, _daemon_elsewhere: Daemon, qcow2: Path) -> Elsewhere:
    url = _daemon_elsewhere.url
    region = f"elsewhere-{secrets.token_hex(4)}"
    make_region(keystone, region, {"image": url})
    headers = {"X-Auth-Token": keystone.token("demo", "demo"), "Accept": "application/json"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as there:

        def new(data: bytes, **body: str) -> str:
            image = there.post("/v2/images", json=body).raise_for_status().json()
            there.put(image["file"], content=data, headers=OCTETS).raise_for_status()
            return image["id"]

        properties = {"hw_disk_bus": "scsi", "os_distro": "debian", "of_no_use": "here"}
        image = new(qcow2.read_bytes(), **QCOW2, **properties)
        odd = new(b"odd", disk_format="odd", container_format="bare")
    return Elsewhere(region, image, odd)


@dataclass(frozen=True)
class Sources:
    """The same disk, wherever a method takes it from."""

    file: Path
    uri: str
    elsewhere: Elsewhere


@pytest.fixture
def sources(qcow2: Path, site: Site, elsewhere: Elsewhere) -> Sources:
    return Sources(qcow2, site.put("disk.qcow2", qcow2.read_bytes()), elsewhere)


def by_sdk(
    cloud: PasswordCloud,
    name: str,
    method: str,
    sources: Sources,
    stores: Sequence[str] = STORES,
) -> str:
    given: Mapping[str, object] = {
        "glance-direct": {"filename": str(sources.file)},
        "web-download": {"uri": sources.uri},
        "glance-download": {
            "remote_region": sources.elsewhere.region,
            "remote_image_id": sources.elsewhere.image,
            # Without one it sends neither of the others.
            "remote_service_interface": "public",
        },
    }[method]
    return cloud.sdk(
        "image.create_image",
        name,
        use_import=True,
        import_method=method,
        stores=list(stores),
        **QCOW2,
        **given,
    )["id"]


def by_openstack(cloud: PasswordCloud, name: str, method: str, sources: Sources) -> str:
    image = cloud.sdk("image.create_image", name, allow_duplicates=True, **QCOW2)["id"]
    if method == "glance-direct":
        cloud.openstack("image", "stage", "--file", str(sources.file), image)
    given = {
        "glance-direct": (),
        "web-download": ("--uri", sources.uri),
        "glance-download": (
            *("--remote-region", sources.elsewhere.region),
            *("--remote-image", sources.elsewhere.image),
            *("--remote-service-interface", "public"),
        ),
    }[method]
    cloud.openstack("image", "import", image, "--method", method, *given, "--store", *STORES)
    return image


def by_glance(cloud: PasswordCloud, name: str, method: str, sources: Sources) -> str:
    given = {
        "glance-direct": ("--file", str(sources.file)),
        "web-download": ("--uri", sources.uri),
        "glance-download": (
            *("--remote-region", sources.elsewhere.region),
            *("--remote-image-id", sources.elsewhere.image),
        ),
    }[method]
    stores = ("--stores", ",".join(STORES), "--allow-failure", "False")
    command = ("image-create-via-import", "--name", name, *FORMATS, "--import-method", method)
    return cloud.glance_shown(*command, *stores, *given)["id"]


@pytest.mark.parametrize("client", [by_sdk, by_openstack, by_glance], ids=lambda by: by.__name__)
@pytest.mark.parametrize("method", ["glance-direct", "web-download", "glance-download"])
def test_each_client_imports_into_all_kinds_of_stores(
    demo: PasswordCloud,
    http: httpx.Client,
    keystone: Keystone,
    polled: Polled,
    sources: Sources,
    client: Callable[..., str],
    method: str,
    name: str,
) -> None:
    image = client(demo, name, method, sources)
    # So do programs wait that use the library.
    waited = {"status": "active", "failures": ["queued"], "interval": 0.1, "wait": 60}
    demo.sdk("image.wait_for_status", f"image:{image}", **waited)
    # openstack lets stores fail, if it is not told otherwise: then one is enough to be active.
    shown = polled(image, has_ended)
    data = sources.file.read_bytes()
    assert {key: shown[key] for key in ("stores", "size", "virtual_size", "os_hash_value")} == {
        "stores": IN_ALL,
        "size": len(data),
        "virtual_size": MIB,
        "os_hash_value": hashlib.sha512(data).hexdigest(),
    }
    assert shown["os_glance_failed_import"] == ""
    assert http.get(shown["file"]).content == data
    if method == "glance-download":
        assert (shown["hw_disk_bus"], shown["os_distro"]) == ("scsi", "debian")
        assert "of_no_use" not in shown

    [task] = demo.sdk("image.image_tasks", image)
    assert (task["type"], task["status"]) == ("api_image_import", "success")
    assert task["input"]["import_req"]["method"]["name"] == method
    assert task["result"] == {"image_id": image}
    assert (task["image_id"], task["owner"]) == (image, keystone.project_id("demo"))
    assert task["request_id"].startswith("req-")


def test_an_image_of_another_region_has_a_format_that_this_one_knows(
    http: httpx.Client, elsewhere: Elsewhere, polled: Polled
) -> None:
    image = http.post("/v2/images", json=QCOW2).json()["id"]
    method = {
        "name": "glance-download",
        "glance_region": elsewhere.region,
        "glance_image_id": elsewhere.odd,
    }
    body = {"method": method}
    http.post(f"/v2/images/{image}/import", json=body).raise_for_status()
    shown = polled(image, lambda shown: shown["status"] == "queued")
    assert shown["os_glance_import_message"].startswith("Images may not be odd in bare here.")
    assert shown["disk_format"] == "qcow2"


@pytest.mark.parametrize("is_right", [True, False], ids=["signed", "other data"])
def test_a_signed_image_of_another_region_is_verified(
    http: httpx.Client,
    sources: Sources,
    polled: Polled,
    barbican: Barbican,
    keystone: Keystone,
    is_right: bool,
) -> None:
    data = sources.file.read_bytes() if is_right else b"other data"
    pem = signing.certificate(signing.key())
    certificate = signing.kept(barbican, keystone.token("demo", "demo"), pem)
    signed = signing.properties(data, certificate)
    image = http.post("/v2/images", json={**QCOW2, **signed}).raise_for_status().json()["id"]
    method = {
        "name": "glance-download",
        "glance_region": sources.elsewhere.region,
        "glance_image_id": sources.elsewhere.image,
    }
    http.post(f"/v2/images/{image}/import", json={"method": method}).raise_for_status()
    shown = polled(image, lambda shown: shown["status"] != "importing")
    if is_right:
        assert (shown["status"], shown["size"]) == ("active", len(data))
    else:
        assert (shown["status"], shown["size"]) == ("queued", None)
        message = shown["os_glance_import_message"]
        assert message.startswith("Signature verification failed: the data is not what was signed.")


def test_data_is_imported_into_the_default_store(
    demo: PasswordCloud, qcow2: Path, polled: Polled, name: str
) -> None:
    created = demo.shown("image", "create", "--import", "--file", str(qcow2), *FORMATS, name)
    shown = polled(created["id"], lambda shown: shown["status"] == "active")
    assert shown["stores"] == "fast"
    # Neither a method nor a store is named, nor a file: it comes from standard input.
    command = ("image-create-via-import", "--name", name, *FORMATS)
    created = demo.glance_shown(*command, stdin=qcow2)
    shown = polled(created["id"], lambda shown: shown["status"] == "active")
    assert (shown["stores"], shown["size"]) == ("fast", qcow2.stat().st_size)


def test_an_image_is_copied_from_store_to_store(
    demo: PasswordCloud,
    admin: PasswordCloud,
    make_image: Callable[..., dict[str, Any]],
    http: httpx.Client,
    polled: Polled,
) -> None:
    image = make_image(data=b"to be copied")["id"]
    # Nova, which reads the same two properties; and as it is by default, not by just anybody.
    copied = {"method": "copy-image", "stores": ["one"]}
    with pytest.raises(Exception, match="403") as refused:
        demo.glanceclient("images.image_import", image, **copied)
    assert "HTTPForbidden" in refused.value.names  # pyright: ignore[reportAttributeAccessIssue]
    admin.glanceclient("images.image_import", image, **copied)
    shown = polled(image, has_ended)
    assert (shown["stores"], shown["os_glance_failed_import"]) == ("fast,one", "")

    admin.sdk("image.import_image", f"image:{image}", "copy-image", stores=["objects"])
    assert polled(image, has_ended)["stores"] == "fast,objects,one"

    command = ("image-import", image, "--import-method", "copy-image")
    admin.glance(*command, "--stores", "two")
    assert polled(image, has_ended)["stores"] == "fast,objects,one,two"

    # What can be written to and has it not yet.
    admin.openstack("image", "import", image, "--method", "copy-image", "--all-stores")
    shown = polled(image, has_ended)
    assert (shown["stores"], shown["status"]) == ("cheap,fast,objects,one,two", "active")
    assert http.get(shown["file"]).content == b"to be copied"
    assert [task["status"] for task in admin.sdk("image.image_tasks", image)] == ["success"] * 4
    http.delete(f"/v2/images/{image}").raise_for_status()


def test_a_client_that_names_its_store_twice_is_understood(
    demo: PasswordCloud, http: httpx.Client, site: Site, polled: Polled
) -> None:
    body = {"disk_format": "raw", "container_format": "bare"}
    image = http.post("/v2/images", json=body).json()["id"]
    # In a header and in the body: Glance refuses it.
    uri = site.put("raw", b"some bytes")
    demo.sdk("image.import_image", f"image:{image}", "web-download", uri=uri, store="cheap")
    assert polled(image, lambda shown: shown["status"] == "active")["stores"] == "cheap"


def test_a_failed_import_says_why_and_is_begun_again(
    demo: PasswordCloud,
    other: PasswordCloud,
    keystone: Keystone,
    site: Site,
    qcow2: Path,
    polled: Polled,
    name: str,
) -> None:
    image = demo.sdk("image.create_image", name, **QCOW2)["id"]
    demo.openstack("image", "add", "project", image, keystone.project_id("other"))
    command = ("image", "import", image, "--method", "web-download", "--store", "one", "fast")
    demo.openstack(*command, "--uri", site.url("nowhere"))
    shown = polled(image, lambda shown: shown["status"] == "queued")
    assert shown["os_glance_failed_import"] == "fast,one"
    assert shown["os_glance_importing_to_stores"] == ""
    reason = shown["os_glance_import_message"]
    assert "404" in reason
    assert demo.shown("image", "show", image)["properties"]["os_glance_import_message"] == reason
    # It is the owner's.
    assert "os_glance_import_message" not in other.shown("image", "show", image)["properties"]
    [[message, status, _]] = rows(demo.glance("image-tasks", image))
    assert (message, status) == (reason, "failure")

    site.put("somewhere", qcow2.read_bytes())
    demo.openstack(*command, "--uri", site.url("somewhere"))
    shown = polled(image, has_ended)
    assert (shown["stores"], shown["os_glance_failed_import"]) == ("fast,one", "")
    assert "os_glance_import_message" not in shown
    assert site.asked_for("somewhere") == 1
    assert {task["status"] for task in demo.sdk("image.image_tasks", image)} == {
        "failure",
        "success",
    }


def test_a_client_says_why_an_import_is_refused(demo: PasswordCloud, http: httpx.Client) -> None:
    image = http.post("/v2/images", json=QCOW2).json()["id"]
    with pytest.raises(CommandFailed, match="in status 'uploading'"):
        demo.openstack("image", "import", image, "--method", "glance-direct")
    # What the service says is told by glance alone: openstack does not look at the answer.
    imported = ("image-import", image, "--import-method", "web-download", "--uri")
    for uri in ("file:///etc/passwd", "http://169.254.169.254/latest/meta-data"):
        with pytest.raises(CommandFailed, match="HTTP 400"):
            demo.glance(*imported, uri)
    with pytest.raises(CommandFailed, match="Store 'nowhere' is not valid"):
        demo.glance(*imported, "https://images.example/disk", "--stores", "nowhere")
    assert demo.glance_shown("image-show", image)["status"] == "queued"


@pytest.fixture
def in_swift(demo: PasswordCloud, qcow2: Path, name: str) -> Generator[str]:
    """An object of demo's, as `container/object`."""
    container = f"{name} of mine"
    demo.sdk("object_store.create_container", container)
    demo.sdk("create_object", container, "disks/1.qcow2", filename=str(qcow2))
    yield f"{container}/disks/1.qcow2"
    demo.sdk("object_store.delete_object", "disks/1.qcow2", container=container)
    demo.sdk("object_store.delete_container", container)


@pytest.mark.parametrize(
    "stores", [STORES, *(pytest.param((store,), marks=pytest.mark.long) for store in STORES)]
)
def test_an_object_in_swift_is_imported(
    demo: PasswordCloud,
    http: httpx.Client,
    in_swift: str,
    qcow2: Path,
    polled: Polled,
    stores: Sequence[str],
) -> None:
    image = http.post("/v2/images", json=QCOW2).json()["id"]
    # No client has a word for it yet.
    method = {"name": "swift-local", "swift-location": in_swift}
    body = {"method": method, "stores": list(stores)}
    assert demo.sdk("image.post", f"/images/{image}/import", json=body) == ""
    shown = polled(image, has_ended)
    assert (shown["stores"], shown["virtual_size"]) == (",".join(sorted(stores)), MIB)
    assert http.get(shown["file"]).content == qcow2.read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("method", ["glance-direct", "web-download", "glance-download"])
def test_each_method_imports_into_each_store_alone(
    demo: PasswordCloud,
    http: httpx.Client,
    sources: Sources,
    polled: Polled,
    name: str,
    method: str,
    store: str,
) -> None:
    shown = polled(by_sdk(demo, name, method, sources, [store]), has_ended)
    assert (shown["status"], shown["stores"]) == ("active", store)
    assert http.get(shown["file"]).content == sources.file.read_bytes()


@pytest.mark.long
@pytest.mark.parametrize(
    ("origin", "store"),
    [(origin, to) for origin in ("cheap", "two", "objects") for to in STORES if origin != to],
)
def test_an_image_is_copied_from_each_store_into_each_other(
    admin: PasswordCloud, http: httpx.Client, polled: Polled, origin: str, store: str
) -> None:
    image = http.post("/v2/images", json={**QCOW2, "disk_format": "raw"}).json()
    headers = {**OCTETS, "X-Image-Meta-Store": origin}
    data = os.urandom(12 * MIB)
    http.put(image["file"], content=data, headers=headers).raise_for_status()
    admin.sdk("image.import_image", f"image:{image['id']}", "copy-image", stores=[store])
    shown = polled(image["id"], has_ended)
    assert shown["stores"] == ",".join(sorted([origin, store]))
    # From the first of them by name.
    assert http.get(image["file"]).content == data


def test_images_are_made_by_tasks_of_objects_in_swift(
    cloud: Callable[[str], Cloud], qcow2: Path, name: str
) -> None:
    tasks = cloud("tasks")
    image = tasks.sdk(
        "image.create_image",
        name,
        filename=str(qcow2),
        container=name,
        wait=True,
        timeout=60,
        hw_disk_bus="scsi",
    )
    assert (image["status"], image["size"]) == ("active", qcow2.stat().st_size)
    # It does not say what it is.
    assert (image["disk_format"], image["container_format"]) == ("qcow2", "bare")
    assert image["hw_disk_bus"] == "scsi"
    data = tasks.sdk("image.download_image", image["id"])
    assert data.encode(errors="surrogateescape") == qcow2.read_bytes()
    assert tasks.sdk("object_store.objects", name) == []
    tasks.sdk("object_store.delete_container", name)


def test_tasks_are_made_listed_and_shown(
    demo: PasswordCloud, admin: PasswordCloud, qcow2: Path, site: Site, name: str
) -> None:
    given = {
        "import_from": site.put(name, qcow2.read_bytes()),
        "import_from_format": "qcow2",
        "image_properties": {"name": name, **QCOW2},
    }
    command = ("task-create", "--type", "import", "--input", json.dumps(given))
    with pytest.raises(CommandFailed, match="403"):
        demo.glance(*command)
    task = dict(rows(admin.glance(*command)))["id"]
    waited = {"status": "success", "interval": 0.1, "wait": 60}
    made = admin.sdk("image.wait_for_task", f"task:{task}", **waited)
    assert made["result"]["image_id"]
    [shown] = admin.shown("image", "list", "--name", name)
    assert (shown["ID"], shown["Status"]) == (made["result"]["image_id"], "active")

    shown = admin.shown("image", "task", "show", task)
    assert (shown["status"], shown["type"]) == ("success", "import")
    assert dict(rows(admin.glance("task-show", task)))["status"] == "success"
    listed = admin.shown("image", "task", "list", "--status", "success")
    assert task in [one["ID"] for one in listed]
    assert task in [row[0] for row in rows(admin.glance("task-list", "--type", "import"))]
