"""What Nova, Cinder and Ironic do with images, by their own code, with a real Keystone.

Each sends the token of its user, and one of its own as other services do.
"""

import hashlib
import secrets
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from dev import environments
from dev.keystone import PASSWORD, Keystone

from tests.clients.clouds import Raised
from tests.clients.conftest import IMAGE_SIZE_CAP, Polled, Site
from tests.clients.using_services import Service, Who, running
from tests.daemon import Daemon

pytestmark = pytest.mark.long

MakeImage = Callable[..., dict[str, Any]]
DATA = bytes(range(256)) * 5000
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
RAW = {"disk_format": "raw", "container_format": "bare"}


@pytest.fixture(scope="session")
def _account(keystone: Keystone) -> dict[str, str]:
    """The options by which a service has a token of its own.

    Its user is an administrator as those of Kolla and DevStack are: as in Glance, the role service
    alone does not let Cinder see an image of its user's project, to tell where that is.
    """
    name = f"service-{secrets.token_hex(4)}"
    made = {"name": name, "password": PASSWORD, "domain_id": "default"}
    user = keystone.call("POST", "/users", {"user": made})["user"]["id"]
    for role in keystone.call("GET", "/roles")["roles"]:
        if role["name"] in ("service", "admin"):
            path = f"/projects/{keystone.project_id('service')}/users/{user}/roles/{role['id']}"
            keystone.call("PUT", path)
    return {
        "auth_type": "password",
        "auth_url": keystone.url,
        "username": name,
        "password": PASSWORD,
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }


def _ini(sections: dict[str, dict[str, str]]) -> str:
    lines: list[str] = []
    for section, options in sections.items():
        lines += [f"[{section}]", *(f"{name} = {value}" for name, value in options.items())]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def _python() -> Path:
    return environments.ready("services") / "python"


@pytest.fixture(scope="session")
def nova(
    _account: dict[str, str], _python: Path, client_folder: Path, image_daemon: Daemon, region: str
) -> Generator[Service]:
    configuration = _ini(
        {
            "glance": {"region_name": region, "num_retries": "1"},
            "service_user": {"send_service_user_token": "true", **_account},
            "libvirt": {
                "images_rbd_glance_store_name": "one",
                "images_rbd_glance_copy_poll_interval": "1",
                "images_rbd_glance_copy_timeout": "60",
            },
        }
    )
    with running("nova", _python, configuration, client_folder / "nova") as process:
        yield Service(process, image_daemon.url, region)


@pytest.fixture(scope="session")
def cinder(
    _account: dict[str, str], _python: Path, client_folder: Path, image_daemon: Daemon, region: str
) -> Generator[Service]:
    configuration = _ini(
        {
            "DEFAULT": {"auth_strategy": "keystone", "glance_num_retries": "1"},
            "glance": {"region_name": region, **_account},
            "service_user": {"send_service_user_token": "true", **_account},
        }
    )
    with running("cinder", _python, configuration, client_folder / "cinder") as process:
        yield Service(process, image_daemon.url, region)


@pytest.fixture(scope="session")
def ironic(
    _account: dict[str, str], _python: Path, client_folder: Path, image_daemon: Daemon, region: str
) -> Generator[Service]:
    configuration = _ini({"glance": {"region_name": region, "num_retries": "1", **_account}})
    with running("ironic", _python, configuration, client_folder / "ironic") as process:
        yield Service(process, image_daemon.url, region)


@pytest.fixture(scope="session")
def who(keystone: Keystone) -> Callable[[str, str], Who]:
    def one(user: str, project: str) -> Who:
        ids = keystone.user_id(user), keystone.project_id(project)
        return Who(*ids, token=keystone.token(user, project))

    return one


@pytest.fixture(scope="session")
def demo(who: Callable[[str, str], Who]) -> Who:
    return who("demo", "demo")


@pytest.fixture(scope="session")
def other(who: Callable[[str, str], Who]) -> Who:
    return who("other", "other")


@pytest.fixture(scope="session")
def reader(who: Callable[[str, str], Who]) -> Who:
    return who("reader", "demo")


@pytest.fixture(scope="session")
def admin(who: Callable[[str, str], Who]) -> Who:
    return who("admin", "admin")


def refused(name: str, service: Service, who: Who, call: str, *arguments: Any, **named: Any) -> str:
    """The call raises an exception of this name; its words."""
    with pytest.raises(Raised) as raised:
        service(who, call, *arguments, **named)
    assert raised.value.name == name, raised.value.__notes__
    return raised.value.message


# --- Nova -----------------------------------------------------------------------------------------


def test_nova_shows_an_image(nova: Service, demo: Who, make_image: MakeImage, name: str) -> None:
    image = make_image(name=name, data=DATA, min_disk=1, hw_disk_bus="scsi", tags=["one"])
    shown = nova(demo, "api.get", image["id"])
    assert (
        shown.items()
        >= {
            "id": image["id"],
            "name": name,
            "status": "active",
            "size": len(DATA),
            "checksum": MD5,
            "min_disk": 1,
            "is_public": False,
            "owner": demo.project_id,
        }.items()
    )
    # What is no property of the image's own is none for Nova.
    assert shown["properties"] == {"hw_disk_bus": "scsi"}
    assert "locations" not in shown
    located = nova(demo, "api.get", image["id"], include_locations=True)
    assert located["locations"][0]["metadata"] == {"store": "fast"}
    assert located["stores"] == "fast"


def test_nova_lists_images(
    nova: Service, demo: Who, make_image: MakeImage, keystone: Keystone, name: str
) -> None:
    images = [make_image(name=name, number=str(number))["id"] for number in range(5)]
    order = {"sort_keys": ["created_at"], "sort_dirs": ["asc"]}

    def listed(**filters: Any) -> list[str]:
        found = nova(demo, "api.get_all", filters={"name": name, **filters}, **order)
        return [one["id"] for one in found]

    assert sorted(listed()) == sorted(images)
    assert listed(**{"property-number": "3"}) == [images[3]]
    assert listed(**{"changes-since": "2999-01-01T00:00:00Z"}) == []
    assert listed(status="ACTIVE") == []
    filters = {"name": name}
    first = nova(demo, "api.get_all", filters=filters, limit=2, page_size=1)
    rest = nova(demo, "api.get_all", filters=filters, marker=first[-1]["id"])
    assert sorted(one["id"] for one in [*first, *rest]) == sorted(images)
    assert refused("Invalid", nova, demo, "api.get_all", marker="nowhere") != ""


def test_nova_makes_an_image_without_data(nova: Service, demo: Who, other: Who, name: str) -> None:
    """As it does of a server that has a volume for a disk."""
    devices = [{"source_type": "snapshot", "boot_index": 0, "device_name": "/dev/vda" * 1000}]
    given = {
        "name": name,
        "size": 0,
        "properties": {
            "block_device_mapping": devices,
            "bdm_v2": True,
            "root_device_name": "/dev/vda",
            "kernel_id": "",
            "instance_owner": other.project_id,
        },
    }
    made = nova(demo, "api.create", given)
    assert (made["status"], made["size"], made["disk_format"]) == ("active", 0, "raw")
    shown = nova(other, "api.get", made["id"])
    assert shown["properties"]["bdm_v2"] == "True"
    assert shown["properties"]["block_device_mapping"] == devices
    assert "kernel_id" not in shown["properties"]


def test_nova_snapshots_a_server(
    nova: Service, demo: Who, http: httpx.Client, name: str, tmp_path: Path
) -> None:
    begun = {"name": name, "properties": {"image_type": "snapshot", "instance_uuid": name}}
    image = nova(demo, "api.create", begun)["id"]
    (tmp_path / "disk").write_bytes(DATA)
    metadata = {**RAW, "name": name, "properties": {"image_type": "snapshot"}}
    done = nova(demo, "api.update", image, metadata, f"from:{tmp_path / 'disk'}", purge_props=True)
    assert (done["status"], done["size"], done["checksum"]) == ("active", len(DATA), MD5)
    assert done["properties"] == {"image_type": "snapshot"}
    assert http.get(f"/v2/images/{image}/file").content == DATA

    kept = {"properties": {"os_distro": "debian"}}
    changed = nova(demo, "api.update", image, kept, purge_props=False)
    assert changed["properties"] == {"image_type": "snapshot", "os_distro": "debian"}
    nova(demo, "api.delete", image)
    refused("ImageNotFound", nova, demo, "api.get", image)


def test_nova_registers_where_it_made_a_snapshot(
    nova: Service, demo: Who, site: Site, polled: Polled, http: httpx.Client, name: str
) -> None:
    image = nova(demo, "api.create", {"name": name, **RAW, "properties": {}})["id"]
    located = {"location": site.put(name, DATA), "properties": {"image_type": "snapshot"}}
    nova(demo, "api.update", image, located, purge_props=False)
    shown = polled(image, lambda shown: shown["checksum"] is not None)
    assert (shown["status"], shown["size"], shown["checksum"]) == ("active", len(DATA), MD5)
    found = nova(demo, "api.get", image, include_locations=True)["locations"]
    assert found[0] == {"url": located["location"], "metadata": {"store": "web"}}
    assert http.get(shown["file"]).content == DATA
    unknown = {"location": "nowhere://snapshot", "properties": {}}
    other = nova(demo, "api.create", {"name": name, **RAW, "properties": {}})["id"]
    refused("Invalid", nova, demo, "api.update", other, unknown, purge_props=False)


def test_nova_downloads(nova: Service, demo: Who, make_image: MakeImage, tmp_path: Path) -> None:
    image = make_image(data=DATA)["id"]
    copy = tmp_path / "copy"
    nova(demo, "api.download", image, dest_path=str(copy))
    assert copy.read_bytes() == DATA
    nova(demo, "api.download", image, f"to:{copy}-2")
    assert Path(f"{copy}-2").read_bytes() == DATA
    assert nova(demo, "api.download", image).encode(errors="surrogateescape") == DATA
    words = refused("ImageUnacceptable", nova, demo, "api.download", make_image()["id"])
    assert "no associated data" in words


def test_nova_translates_refusals(
    nova: Service,
    demo: Who,
    other: Who,
    reader: Who,
    make_image: MakeImage,
    client_folder: Path,
    tmp_path: Path,
) -> None:
    image = make_image(data=DATA, protected=True)["id"]
    refused("ImageNotFound", nova, other, "api.get", image)
    refused("ImageNotFound", nova, other, "api.delete", image)
    refused("ImageNotFound", nova, other, "api.download", image)
    refused("ImageNotAuthorized", nova, demo, "api.delete", image)
    refused("ImageNotAuthorized", nova, reader, "api.download", image)
    refused("Forbidden", nova, reader, "api.create", {"name": "x", "properties": {}})
    update = ({"properties": {"x" * 256: "y"}},)
    refused("ImageBadRequest", nova, demo, "api.update", image, *update, purge_props=False)
    forged = Who(demo.user_id, demo.project_id, "nonsense")
    refused("ImageNotAuthorized", nova, forged, "api.get", image)

    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(IMAGE_SIZE_CAP + 1)
    empty = make_image()["id"]
    given = (empty, {"properties": {}}, f"from:{large}")
    refused("ImageQuotaExceeded", nova, demo, "api.update", *given, purge_props=False)

    # What is there for another try, Nova tries again.
    (client_folder / "fast" / image).write_bytes(b"damaged")
    refused("GlanceConnectionFailed", nova, demo, "api.download", image)


def test_nova_tries_another_server(
    nova: Service, demo: Who, make_image: MakeImage, image_daemon: Daemon
) -> None:
    image = make_image()["id"]
    # Nova shuffles them; where nobody listens it is refused at once.
    servers = ["http://127.0.0.1:1", image_daemon.url]
    two = nova.with_options(glance__api_servers=servers)
    assert two(demo, "api.get", image)["id"] == image
    none = nova.with_options(glance__api_servers=servers[:1], glance__num_retries=0)
    refused("GlanceConnectionFailed", none, demo, "api.get", image)


def test_nova_has_an_image_copied_to_where_its_disks_are(
    nova: Service, demo: Who, admin: Who, make_image: MakeImage, http: httpx.Client
) -> None:
    image = make_image(data=DATA)["id"]
    described = {"id": image}
    refused("ImageNotAuthorized", nova, demo, "rbd.copy_to_store", described)
    nova(admin, "rbd.copy_to_store", described)
    assert http.get(f"/v2/images/{image}").json()["stores"] == "fast,one"
    # Another compute host may have asked for it at the same time.
    refused("ImageBadRequest", nova, admin, "api.copy_image_to_store", image, "one")
    nova(admin, "rbd.copy_to_store", described)
    queued = {"id": make_image()["id"]}
    refused("ImageUnacceptable", nova, admin, "rbd.copy_to_store", queued)


# --- Cinder ---------------------------------------------------------------------------------------


def test_cinder_shows_and_lists_images(
    cinder: Service, demo: Who, other: Who, make_image: MakeImage, name: str
) -> None:
    image = make_image(name=name, data=DATA, hw_disk_bus="scsi")["id"]
    shown = cinder(demo, "service.show", image)
    assert (shown["name"], shown["checksum"], shown["size"]) == (name, MD5, len(DATA))
    assert shown["properties"] == {"hw_disk_bus": "scsi"}
    [listed] = cinder(demo, "service.detail", filters={"name": name})
    assert listed == shown
    assert cinder(demo, "service.list_members", image) == []
    stores = cinder(demo, "service.get_stores")["stores"]
    assert "fast" in [store["id"] for store in stores]
    refused("ImageNotFound", cinder, other, "service.show", image)
    # It asks only when the list is read, where Cinder translates nothing.
    refused("HTTPBadRequest", cinder, demo, "service.detail", marker="nowhere")


def test_cinder_makes_an_image_of_a_volume(
    cinder: Service, demo: Who, http: httpx.Client, name: str, tmp_path: Path
) -> None:
    image = cinder(demo, "service.create", {"name": name, **RAW, "properties": {"a": "b"}})["id"]
    (tmp_path / "disk").write_bytes(DATA)
    data = f"from:{tmp_path / 'disk'}"
    # Its volume type names the store; it tells, too, which image the volume was made of.
    named = {"purge_props": False, "store_id": "cheap", "base_image_ref": name}
    done = cinder(demo, "service.update", image, {}, data, **named)
    assert (done["status"], done["checksum"]) == ("active", MD5)
    assert http.get(f"/v2/images/{image}").json()["stores"] == "cheap"
    purged = cinder(demo, "service.update", image, {"properties": {"c": "d"}}, purge_props=True)
    assert purged["properties"] == {"c": "d"}

    copy = tmp_path / "copy"
    cinder(demo, "service.download", image, f"to:{copy}")
    assert copy.read_bytes() == DATA
    assert cinder(demo, "service.delete", image)
    refused("ImageNotFound", cinder, demo, "service.delete", image)


def test_cinder_reads_where_an_image_is(
    cinder: Service, demo: Who, make_image: MakeImage, client_folder: Path, tmp_path: Path
) -> None:
    image = make_image(data=DATA)["id"]
    file = client_folder / "fast" / image
    direct_url, locations = cinder(demo, "service.get_location", image)
    assert direct_url is None
    assert locations == [{"url": file.as_uri(), "metadata": {"store": "fast"}}]
    # On the same directory it copies the file itself.
    file.write_bytes(b"changed there")
    direct = cinder.with_options(allowed_direct_url_schemes=["file"])
    direct(demo, "service.download", image, f"to:{tmp_path / 'copy'}")
    assert (tmp_path / "copy").read_bytes() == b"changed there"


def test_cinder_registers_where_a_volume_is(
    cinder: Service, demo: Who, site: Site, make_image: MakeImage, polled: Polled, name: str
) -> None:
    url = site.put(name, DATA)
    # What its volume type says of the store.
    for metadata in ({}, {"store": "web"}):
        image = make_image()["id"]
        cinder(demo, "service.add_location", image, url, metadata)
        shown = polled(image, lambda shown: shown["checksum"] is not None)
        assert (shown["status"], shown["checksum"], shown["stores"]) == ("active", MD5, "web")
        _, locations = cinder(demo, "service.get_location", image)
        assert locations == [{"url": url, "metadata": {"store": "web"}}]


def test_cinder_translates_refusals(
    cinder: Service,
    demo: Who,
    other: Who,
    reader: Who,
    make_image: MakeImage,
    site: Site,
    name: str,
    tmp_path: Path,
    client_folder: Path,
) -> None:
    image = make_image()["id"]
    url = site.put(name, DATA)
    # Cinder copies the bytes instead.
    for bad in ("nowhere://volume", f"{url}-gone"):
        refused("Invalid", cinder, demo, "service.add_location", image, bad, {})
    refused("ImageNotFound", cinder, demo, "service.add_location", name, url, {})
    refused("ImageNotFound", cinder, demo, "service.get_location", name)
    refused("ImageNotFound", cinder, other, "service.download", image)
    (tmp_path / "disk").write_bytes(DATA)
    data = f"from:{tmp_path / 'disk'}"
    given = (image, {}, data)
    refused("ImageNotAuthorized", cinder, reader, "service.update", *given, purge_props=False)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(IMAGE_SIZE_CAP + 1)
    given = (image, {}, f"from:{large}")
    refused("ImageLimitExceeded", cinder, demo, "service.update", *given, purge_props=False)
    damaged = make_image(data=DATA)["id"]
    (client_folder / "fast" / damaged).write_bytes(b"damaged")
    refused("GlanceConnectionFailed", cinder, demo, "service.download", damaged)


# --- Ironic ---------------------------------------------------------------------------------------


def test_ironic_shows_and_downloads(
    ironic: Service, demo: Who, make_image: MakeImage, tmp_path: Path
) -> None:
    image = make_image(data=DATA, visibility="community", hw_firmware_type="uefi")["id"]
    shown = ironic(demo, "service.show", image)
    assert (shown["checksum"], shown["properties"]["hw_firmware_type"]) == (MD5, "uefi")
    copy = tmp_path / "copy"
    digest = hashlib.sha512(DATA).hexdigest()
    ironic(demo, "service.download", image, f"to:{copy}", digest, "sha512")
    assert copy.read_bytes() == DATA
    refused("ImageUnacceptable", ironic, demo, "service.show", make_image()["id"])


def test_ironic_takes_images_that_are_shared_with_it(
    ironic: Service,
    demo: Who,
    make_image: MakeImage,
    keystone: Keystone,
    http: httpx.Client,
) -> None:
    image = make_image(data=DATA)["id"]
    refused("ImageNotFound", ironic, demo, "service.show", image)
    member = {"member": keystone.project_id("service")}
    http.post(f"/v2/images/{image}/members", json=member).raise_for_status()
    assert ironic(demo, "service.show", image)["id"] == image
    [found] = ironic(demo, "service.member_list", image)
    assert found["member_id"] == member["member"]
    refused("ImageNotFound", ironic, demo, "service.show", str(uuid4()))
