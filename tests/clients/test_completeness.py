"""Every command and method for images that the pinned clients have is tried in this folder."""

from pathlib import Path

import pytest

from tests.clients import commands

NO_CACHE = "the cache of the images service is not there yet"
# What is not tried, and why. What is tried after all, or is gone from the client, must go here too.
LEFT_OUT: dict[str, dict[str, str]] = {
    "openstack": {
        "cached image clear": NO_CACHE,
        "cached image delete": NO_CACHE,
        "cached image list": NO_CACHE,
        "cached image queue": NO_CACHE,
    },
    "glance": {
        "cache-clean": NO_CACHE,
        "cache-clear": NO_CACHE,
        "cache-delete": NO_CACHE,
        "cache-list": NO_CACHE,
        "cache-nodes-list": NO_CACHE,
        "cache-prune": NO_CACHE,
        "cache-queue": NO_CACHE,
    },
    "sdk": {
        "image.cache_delete_image": NO_CACHE,
        "image.cached_image_nodes": NO_CACHE,
        "image.clean_cache": NO_CACHE,
        "image.clear_cache": NO_CACHE,
        "image.get_image_cache": NO_CACHE,
        "image.prune_cache": NO_CACHE,
        "image.queue_image": NO_CACHE,
    },
}


@pytest.mark.parametrize("client", LEFT_OUT)
def test_each_command_is_tried_or_left_out_for_a_reason(client: str, clients_env: Path) -> None:
    offered = commands.offered(client, clients_env)
    # The listing itself works.
    assert len(offered) > 40
    assert sorted(offered - commands.named(offered)) == sorted(LEFT_OUT[client])
