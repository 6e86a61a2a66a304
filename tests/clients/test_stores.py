"""The real clients and each of several stores: two S3 buckets, Swift, files."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.clients.clouds import CommandFailed, PasswordCloud
from tests.clients.conftest import MIB
from tests.images.service import OCTETS

QCOW2 = ("--disk-format=qcow2", "--container-format=bare")


@pytest.fixture(scope="session")
def disk(make_qcow2: Callable[[int], Path]) -> Path:
    """One that S3 takes in several parts and Swift in several segments."""
    return make_qcow2(24 * MIB)


@pytest.mark.parametrize("store", ["fast", "one", "two", "objects"])
def test_an_image_comes_back_from_the_store_that_was_named(
    demo: PasswordCloud,
    http: httpx.Client,
    disk: Path,
    store: str,
    name: str,
    tmp_path: Path,
) -> None:
    created = demo.glance_shown(
        "image-create", "--name", name, *QCOW2, "--store", store, "--file", str(disk)
    )
    assert (created["status"], created["stores"]) == ("active", store)
    data = disk.read_bytes()
    demo.glance("image-download", created["id"], "--file", str(tmp_path / "glance"))
    assert (tmp_path / "glance").read_bytes() == data
    demo.openstack("image", "save", "--file", str(tmp_path / "openstack"), name)
    assert (tmp_path / "openstack").read_bytes() == data
    demo.sdk("image.download_image", created["id"], output=str(tmp_path / "sdk"))
    assert (tmp_path / "sdk").read_bytes() == data

    path, size = f"/v2/images/{created['id']}/file", len(data)
    for asked, part in {
        "bytes=0-4095": data[:4096],
        f"bytes={10 * MIB - 1}-{10 * MIB}": data[10 * MIB - 1 : 10 * MIB + 1],
        "bytes=-1": data[-1:],
    }.items():
        got = http.get(path, headers={"Range": asked})
        assert (got.status_code, got.content) == (206, part)
    assert http.get(path, headers={"Range": f"bytes={size}-"}).status_code == 416

    demo.openstack("image", "delete", name)
    with pytest.raises(CommandFailed):
        demo.glance("image-show", created["id"])


@pytest.mark.parametrize("store", ["one", "objects"])
def test_data_is_uploaded_afterwards_to_the_store_that_is_named(
    demo: PasswordCloud, disk: Path, store: str, name: str
) -> None:
    image = demo.glance_shown("image-create", "--name", name, *QCOW2)["id"]
    demo.glance("image-upload", image, "--file", str(disk), "--store", store)
    shown = demo.shown("image", "show", image)
    assert (shown["status"], shown["size"]) == ("active", disk.stat().st_size)
    assert shown["properties"]["stores"] == store


def test_a_store_that_only_reads_takes_nothing(
    http: httpx.Client, demo: PasswordCloud, disk: Path, name: str
) -> None:
    image = demo.glance_shown("image-create", "--name", name, *QCOW2)
    with pytest.raises(CommandFailed, match="410"):
        demo.glance("image-upload", image["id"], "--file", str(disk), "--store", "web")
    headers = {**OCTETS, "X-Image-Meta-Store": "web"}
    refused = http.put(f"/v2/images/{image['id']}/file", content=b"x", headers=headers)
    assert refused.status_code == 410


def test_an_image_leaves_a_store(
    demo: PasswordCloud, admin: PasswordCloud, disk: Path, name: str
) -> None:
    image = demo.glance_shown(
        "image-create", "--name", name, *QCOW2, "--store", "fast", "--file", str(disk)
    )["id"]
    # Its only copy, and only administrators may.
    with pytest.raises(CommandFailed, match="403"):
        admin.glance("stores-delete", image, "--store", "fast")
    with pytest.raises(CommandFailed, match="403"):
        demo.openstack("image", "delete", "--store", "fast", image)
    assert demo.shown("image", "show", image)["properties"]["stores"] == "fast"


def test_stores_are_told_in_detail(demo: PasswordCloud, admin: PasswordCloud) -> None:
    assert "thin_provisioning" in admin.glance("stores-info", "--detail")
    with pytest.raises(CommandFailed, match="403"):
        demo.glance("stores-info", "--detail")
