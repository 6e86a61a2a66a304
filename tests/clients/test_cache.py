"""What administrators do with a node's cache: `glance cache-…` and `openstack cached image …`."""

from pathlib import Path

import pytest

from tests.clients.clouds import CommandFailed, PasswordCloud, rows
from tests.images.daemon import Daemon
from tests.waiting import until


@pytest.fixture
def image(demo: PasswordCloud, qcow2: Path, name: str) -> str:
    """The id of an active image of demo's."""
    formats = ("--disk-format=qcow2", "--container-format=bare")
    return demo.glance_shown("image-create", "--name", name, *formats, "--file", str(qcow2))["id"]


def by_openstack(admin: PasswordCloud, image: str) -> list[str]:
    return [one["State"] for one in admin.shown("cached", "image", "list") if one["ID"] == image]


async def test_openstack_queues_lists_and_drops(admin: PasswordCloud, image: str) -> None:
    admin.openstack("cached", "image", "queue", image)
    await until(lambda: by_openstack(admin, image) == ["cached"], within_s=60)
    admin.openstack("cached", "image", "delete", image)
    assert by_openstack(admin, image) == []
    admin.openstack("cached", "image", "queue", image)
    await until(lambda: by_openstack(admin, image) == ["cached"], within_s=60)
    admin.openstack("cached", "image", "clear")
    assert by_openstack(admin, image) == []


async def test_glance_queues_lists_and_drops(
    admin: PasswordCloud, demo: PasswordCloud, image: str, image_daemon: Daemon, tmp_path: Path
) -> None:
    # It wants the node itself to be named.
    node = ("--os-image-url", image_daemon.url)

    def listed() -> list[list[str]]:
        return [row for row in rows(admin.glance(*node, "cache-list")) if row[0] == image]

    admin.glance(*node, "cache-queue", image)
    await until(lambda: [row[1] for row in listed()] == ["cached"], within_s=60)
    demo.glance("image-download", image, "--file", str(tmp_path / "copy"))
    assert [row[-1] for row in listed()] == ["1"]
    assert str(image_daemon.port) in admin.glance(*node, "cache-nodes-list", image)
    admin.glance(*node, "cache-clean")
    admin.glance(*node, "cache-prune")
    assert [row[1] for row in listed()] == ["cached"]
    admin.glance(*node, "cache-delete", image)
    assert listed() == []
    admin.glance(*node, "cache-clear")
    with pytest.raises(CommandFailed, match="403"):
        demo.glance(*node, "cache-list")
