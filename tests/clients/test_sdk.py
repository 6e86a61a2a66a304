"""What programs do with openstacksdk."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.clouds import Cloud
from tests.clients.conftest import STORES, tag_of

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
    [member] = demo.sdk("image.members", image)
    assert (member["member_id"], member["status"]) == (project, "accepted")
    demo.sdk("image.remove_member", project, image)
    assert demo.sdk("image.members", image) == []

    demo.sdk("image.delete_image", image)
    assert demo.sdk("image.find_image", image) is None


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
