"""What programs do with openstacksdk."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.clouds import Cloud, Raised
from tests.clients.conftest import STORES, Polled, Site, tag_of

BARE = {"disk_format": "raw", "container_format": "bare"}
MakeImage = Callable[..., dict[str, Any]]


def test_an_image_is_created_found_and_downloaded(
    demo: Cloud, qcow2: Path, name: str, tmp_path: Path
) -> None:
    created = demo.sdk(
        "image.create_image",
        name,
        filename=str(qcow2),
        disk_format="qcow2",
        container_format="bare",
        validate_checksum=True,
        os_distro="ubuntu",
    )
    assert (created["status"], created["size"]) == ("active", qcow2.stat().st_size)
    found = demo.sdk("image.find_image", name)
    assert found["id"] == created["id"]
    assert found["os_distro"] == "ubuntu"
    sha256 = hashlib.sha256(qcow2.read_bytes()).hexdigest()
    assert found["properties"]["owner_specified.openstack.sha256"] == sha256
    demo.sdk("image.download_image", created["id"], output=str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == qcow2.read_bytes()


def test_the_same_file_is_not_uploaded_again(demo: Cloud, qcow2: Path, name: str) -> None:
    def create() -> str:
        named = {"filename": str(qcow2), "disk_format": "qcow2", "validate_checksum": True}
        return demo.sdk("create_image", name, **named)["id"]

    first = create()
    assert create() == first


@pytest.mark.parametrize("stream", [False, True])
def test_data_is_downloaded_to_memory(demo: Cloud, make_image: MakeImage, *, stream: bool) -> None:
    data = bytes(range(256)) * 5000
    image = make_image(data=data)
    got = demo.sdk("image.download_image", image["id"], stream=stream)
    assert got.encode(errors="surrogateescape") == data


def test_data_without_a_file_is_uploaded(demo: Cloud, name: str) -> None:
    image = demo.sdk("image.create_image", name, data="some text", **BARE)
    assert demo.sdk("image.get_image", image["id"])["status"] == "active"
    assert demo.sdk("image.download_image", image["id"]) == "some text"


@pytest.mark.parametrize("suffix", ["", " with spaces", "/and?more#&%20=ü", "x" * 60, "x" * 230])
def test_images_are_found_by_name(
    demo: Cloud, make_image: MakeImage, name: str, suffix: str
) -> None:
    assert demo.sdk("image.find_image", name + suffix) is None
    image = make_image(name=name + suffix)
    assert demo.sdk("image.find_image", name + suffix)["id"] == image["id"]
    hidden = make_image(name=f"hidden {name}{suffix}", os_hidden=True)
    assert demo.sdk("image.find_image", hidden["name"])["id"] == hidden["id"]


def test_metadata_tags_and_members_are_changed(
    demo: Cloud, other: Cloud, make_image: MakeImage, name: str
) -> None:
    image = make_image(name=name)["id"]
    updated = demo.sdk(
        "image.update_image", image, name=f"{name} 2", min_disk=2, hw_disk_bus="scsi", odd="x.y"
    )
    assert (updated["name"], updated["min_disk"]) == (f"{name} 2", 2)
    assert (updated["hw_disk_bus"], updated["properties"]["odd"]) == ("scsi", "x.y")
    demo.sdk("image.add_tag", image, "a tag")
    assert demo.sdk("image.get_image", image)["tags"] == ["a tag"]
    demo.sdk("image.remove_tag", image, "a tag")
    assert demo.sdk("image.get_image", image)["tags"] == []

    project = other.sdk("session.get_project_id")
    demo.sdk("image.add_member", image, member_id=project)
    other.sdk("image.update_member", project, image, status="accepted")
    assert demo.sdk("image.get_member", project, image)["status"] == "accepted"
    assert demo.sdk("image.find_member", project, image)["member_id"] == project
    assert demo.sdk("image.find_member", "nobody", image) is None
    [member] = demo.sdk("image.members", image)
    assert (member["member_id"], member["status"]) == (project, "accepted")
    demo.sdk("image.remove_member", project, image)
    assert demo.sdk("image.members", image) == []

    changed = {"hw_disk_bus": "ide", "min_ram": 512}
    assert demo.sdk("image.update_image_properties", f"image:{image}", **changed)
    assert demo.sdk("image.get_image", image).items() >= changed.items()

    demo.sdk("image.delete_image", image)
    assert demo.sdk("image.find_image", image) is None


def test_a_deletion_is_waited_for(demo: Cloud, make_image: MakeImage) -> None:
    image = make_image()["id"]
    with pytest.raises(Raised, match="Timeout"):
        demo.sdk("image.wait_for_delete", f"image:{image}", interval=0.1, wait=0.3)
    demo.sdk("delete_image", image, wait=True, timeout=60)
    assert image not in [one["id"] for one in demo.sdk("list_images")]


def test_data_is_staged_and_imported(
    demo: Cloud, make_image: MakeImage, polled: Polled, qcow2: Path
) -> None:
    image = make_image(disk_format="qcow2")["id"]
    staged = demo.sdk("image.stage_image", f"image:{image}", filename=str(qcow2))
    assert (staged["status"], staged["size"]) == ("uploading", qcow2.stat().st_size)
    demo.sdk("image.import_image", f"image:{image}")
    assert polled(image, lambda shown: shown["status"] == "active")["stores"] == "fast"


def test_the_old_way_to_upload(demo: Cloud, name: str) -> None:
    made = demo.sdk("image.upload_image", "bare", "raw", data="some text", name=name)
    assert demo.sdk("image.download_image", made["id"]) == "some text"


def test_tasks_are_made_and_found(admin: Cloud, site: Site, name: str) -> None:
    given = {
        "import_from": site.put(name, b"some bytes"),
        "import_from_format": "raw",
        "image_properties": {"name": name, **BARE},
    }
    task = admin.sdk("image.create_task", type="import", input=given)["id"]
    assert admin.sdk("image.get_task", task)["input"] == given
    waited = {"status": "success", "interval": 0.1, "wait": 60}
    admin.sdk("image.wait_for_task", f"task:{task}", **waited)
    assert task in [one["id"] for one in admin.sdk("image.tasks", status="success", limit=100)]


def test_lists_go_over_several_pages(demo: Cloud, sixty: list[str]) -> None:
    query = {"tag": tag_of(sixty), "sort": "name:asc"}
    assert [image["name"] for image in demo.sdk("image.images", **query)] == sixty
    assert [image["name"] for image in demo.sdk("image.images", limit=7, **query)] == sixty
    first = demo.sdk("image.images", limit=7, paginated=False, **query)
    assert [image["name"] for image in first] == sixty[:7]


def test_an_image_is_deactivated_and_activated(
    demo: Cloud, admin: Cloud, make_image: MakeImage
) -> None:
    image = make_image(data=b"data")["id"]
    admin.sdk("image.deactivate_image", image)
    assert demo.sdk("image.get_image", image)["status"] == "deactivated"
    admin.sdk("image.reactivate_image", image)
    assert demo.sdk("image.get_image", image)["status"] == "active"


def test_what_the_service_offers_is_told(demo: Cloud, admin: Cloud) -> None:
    assert [store["id"] for store in demo.sdk("image.stores")] == list(STORES)
    assert [store["id"] for store in admin.sdk("image.stores", details=True)] == list(STORES)
    assert demo.sdk("image.get_import_info")["import_methods"]["type"] == "array"
    assert "os_hash_value" in demo.sdk("image.get_image_schema")["properties"]


SCHEMAS = (
    "image.get_image_schema",
    "image.get_images_schema",
    "image.get_member_schema",
    "image.get_members_schema",
    "image.get_task_schema",
    "image.get_tasks_schema",
)


def test_schemas_are_told(demo: Cloud) -> None:
    for call in SCHEMAS:
        kind = call.removeprefix("image.get_").removesuffix("_schema")
        assert demo.sdk(call)["name"] == kind


def test_images_are_found_by_the_connection_itself(
    demo: Cloud, make_image: MakeImage, name: str, tmp_path: Path
) -> None:
    image = make_image(name=name, data=b"data")["id"]
    assert demo.sdk("get_image", name)["id"] == demo.sdk("get_image_by_id", image)["id"] == image
    assert (demo.sdk("get_image_id", name), demo.sdk("get_image_name", image)) == (image, name)
    assert demo.sdk("get_image_exclude", name, "other")["id"] == image
    assert [one["id"] for one in demo.sdk("search_images", name)] == [image]
    demo.sdk("download_image", name, output_path=str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"data"
