"""What administrators do with the cache of a node."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.clouds import Cloud, CommandFailed, PasswordCloud, Raised, rows
from tests.daemon import Daemon
from tests.waiting import until

MakeImage = Callable[..., dict[str, Any]]


def _cached(cloud: Cloud) -> set[str]:
    return {one["image_id"] for one in cloud.sdk("image.get_image_cache")["cached_images"]}


async def test_openstack_caches_images(
    admin: PasswordCloud, demo: PasswordCloud, make_image: MakeImage
) -> None:
    image = make_image(data=b"data")["id"]
    with pytest.raises(CommandFailed, match="403"):
        demo.openstack("cached", "image", "list")
    admin.openstack("cached", "image", "queue", image)

    async def is_cached() -> bool:
        listed = admin.shown("cached", "image", "list")
        return [row["State"] for row in listed if row["ID"] == image] == ["cached"]

    await until(is_cached)
    admin.openstack("cached", "image", "delete", image)
    assert image not in _cached(admin)
    demo.sdk("image.download_image", image)
    assert image in _cached(admin)
    admin.openstack("cached", "image", "clear", "--cache")
    assert image not in _cached(admin)


async def test_glance_caches_images(
    admin: PasswordCloud, image_daemon: Daemon, make_image: MakeImage
) -> None:
    node = ("--os-image-url", image_daemon.url)
    image = make_image(data=b"data")["id"]
    admin.glance(*node, "cache-queue", image)

    async def is_cached() -> bool:
        return [image, "cached"] in [row[:2] for row in rows(admin.glance(*node, "cache-list"))]

    await until(is_cached)
    [[url]] = rows(admin.glance(*node, "cache-nodes-list", image))
    assert url.endswith(f":{image_daemon.port}")
    admin.glance(*node, "cache-clean")
    assert "Pruned 0 file(s)" in admin.glance(*node, "cache-prune")
    admin.glance(*node, "cache-delete", image)
    assert image not in _cached(admin)
    admin.glance(*node, "cache-clear", "--target", "queue")


async def test_the_sdk_caches_images(
    admin: PasswordCloud, demo: PasswordCloud, make_image: MakeImage
) -> None:
    image = make_image(data=b"data")["id"]
    with pytest.raises(Raised) as raised:
        demo.sdk("image.queue_image", image)
    assert raised.value.name == "ForbiddenException"
    admin.sdk("image.queue_image", image)

    async def is_cached() -> bool:
        return image in _cached(admin)

    await until(is_cached)
    assert len(admin.sdk("image.cached_image_nodes", image)) == 1
    admin.sdk("image.clean_cache")
    assert admin.sdk("image.prune_cache")["total_files_pruned"] == 0
    admin.sdk("image.cache_delete_image", image)
    assert image not in _cached(admin)
    admin.sdk("image.clear_cache", "queue")
