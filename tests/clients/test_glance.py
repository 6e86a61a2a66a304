"""What people do with `glance …`."""

from pathlib import Path

import pytest
from dev.keystone import Keystone

from tests.clients.clouds import CommandFailed, PasswordCloud, rows
from tests.clients.conftest import LIMITS, Polled, tag_of

QCOW2 = ("--disk-format=qcow2", "--container-format=bare")


@pytest.fixture
def image(demo: PasswordCloud, qcow2: Path, name: str) -> str:
    """The id of an active image of demo's."""
    created = demo.glance_shown("image-create", "--name", name, *QCOW2, "--file", str(qcow2))
    assert created["status"] == "active"
    return created["id"]


def test_an_image_comes_back_as_it_was(
    demo: PasswordCloud, image: str, name: str, qcow2: Path, tmp_path: Path
) -> None:
    assert [image, name] in rows(demo.glance("image-list"))
    shown = demo.glance_shown("image-show", image)
    assert (shown["name"], shown["size"]) == (name, str(qcow2.stat().st_size))
    demo.glance("image-download", image, "--file", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == qcow2.read_bytes()


def test_data_is_taken_from_standard_input_and_into_a_chosen_store(
    demo: PasswordCloud, qcow2: Path, name: str
) -> None:
    created = demo.glance_shown(
        "image-create", "--name", name, *QCOW2, "--store", "cheap", stdin=qcow2
    )
    assert (created["status"], created["stores"]) == ("active", "cheap")


def test_data_is_uploaded_afterwards(demo: PasswordCloud, qcow2: Path, name: str) -> None:
    image = demo.glance_shown("image-create", "--name", name, *QCOW2)["id"]
    with pytest.raises(CommandFailed, match="has no data"):
        demo.glance("image-download", image, "--file", "/dev/null")
    demo.glance("image-upload", image, "--file", str(qcow2), "--size", str(qcow2.stat().st_size))
    assert demo.glance_shown("image-show", image)["status"] == "active"


def test_data_is_staged_and_imported(
    demo: PasswordCloud, polled: Polled, qcow2: Path, name: str
) -> None:
    image = demo.glance_shown("image-create", "--name", name, *QCOW2)["id"]
    demo.glance("image-stage", image, "--file", str(qcow2))
    assert demo.glance_shown("image-show", image)["status"] == "uploading"
    demo.glance("image-import", image, "--import-method", "glance-direct")
    assert polled(image, lambda shown: shown["status"] == "active")["stores"] == "fast"


def test_metadata_and_tags_are_changed(demo: PasswordCloud, image: str, name: str) -> None:
    demo.glance(
        *("image-update", image, "--property", "os_distro=ubuntu", "--property", "a b=c:d"),
        *("--name", f"{name} two", "--min-ram", "512", "--hidden", "True", "--protected", "True"),
    )
    demo.glance("image-tag-update", image, "one tag")
    shown = demo.glance_shown("image-show", image)
    assert (
        shown.items()
        >= {
            "name": f"{name} two",
            "os_distro": "ubuntu",
            "a b": "c:d",
            "min_ram": "512",
            "os_hidden": "True",
            "protected": "True",
            "tags": '["one tag"]',
        }.items()
    )
    # glance says so in words of its own.
    with pytest.raises(CommandFailed, match="You are not permitted to delete the image"):
        demo.glance("image-delete", image)

    demo.glance("image-update", image, "--remove-property", "a b", "--protected", "False")
    demo.glance("image-tag-delete", image, "one tag")
    shown = demo.glance_shown("image-show", image)
    assert "a b" not in shown
    assert shown["tags"] == "[]"
    demo.glance("image-delete", image)
    with pytest.raises(CommandFailed, match=f"No image found with ID {image}|HTTP 404"):
        demo.glance("image-show", image)


def test_members_come_and_go(
    demo: PasswordCloud, other: PasswordCloud, keystone: Keystone, image: str, tmp_path: Path
) -> None:
    project = keystone.project_id("other")
    assert rows(demo.glance("member-create", image, project)) == [[image, project, "pending"]]
    assert rows(other.glance("member-update", image, project, "accepted")) == [
        [image, project, "accepted"]
    ]
    assert rows(demo.glance("member-list", "--image-id", image)) == [[image, project, "accepted"]]
    assert demo.glance_shown("member-get", image, project)["status"] == "accepted"
    assert image in other.glance("image-list", "--member-status", "accepted")
    other.glance("image-download", image, "--file", str(tmp_path / "copy"))
    demo.glance("member-delete", image, project)
    with pytest.raises(CommandFailed, match="HTTP 404"):
        other.glance("image-show", image)


def test_a_deactivated_image_is_not_downloaded(
    demo: PasswordCloud, admin: PasswordCloud, image: str, tmp_path: Path
) -> None:
    admin.glance("image-deactivate", image)
    with pytest.raises(CommandFailed, match=f"Image {image} is deactivated"):
        demo.glance("image-download", image, "--file", str(tmp_path / "copy"))
    admin.glance("image-reactivate", image)
    demo.glance("image-download", image, "--file", str(tmp_path / "copy"))


def test_lists_go_over_several_pages(demo: PasswordCloud, sixty: list[str]) -> None:
    tagged = ("image-list", "--tag", tag_of(sixty), "--sort", "name:asc")
    names = [name for _, name in rows(demo.glance(*tagged, "--page-size", "7"))]
    assert names == sixty
    names = [name for _, name in rows(demo.glance(*tagged, "--page-size", "7", "--limit", "10"))]
    assert names == sixty[:10]


def test_what_the_service_offers_is_told(demo: PasswordCloud, admin: PasswordCloud) -> None:
    assert "fast" in demo.glance("stores-info")
    detailed = admin.glance("stores-info", "--detail")
    assert [kind for kind in ("file", "s3", "swift", "http") if f'"{kind}"' not in detailed] == []
    with pytest.raises(CommandFailed, match="rule stores_info_detail denies it"):
        demo.glance("stores-info", "--detail")
    assert "import-methods" in demo.glance("import-info")
    assert "os_hash_value" in demo.glance("explain", "image")
    # Other tests of the same project go on meanwhile.
    usage = {name: limit for name, limit, _ in rows(demo.glance("usage"))}
    assert usage == {name: str(limit) for name, limit in LIMITS.items()}
