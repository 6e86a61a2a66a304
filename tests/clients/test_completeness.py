"""Every command and method for images that the pinned clients have is tried in this folder."""

from pathlib import Path

import pytest

from tests.clients import commands

# What is not tried, and why. What is tried after all, or is gone from the client, must go here too.
LEFT_OUT: dict[str, dict[str, str]] = {"openstack": {}, "glance": {}, "sdk": {}}


@pytest.mark.parametrize("client", LEFT_OUT)
def test_each_command_is_tried_or_left_out_for_a_reason(client: str, clients_env: Path) -> None:
    offered = commands.offered(client, clients_env)
    # The listing itself works.
    assert len(offered) > 40
    assert sorted(offered - commands.named(offered)) == sorted(LEFT_OUT[client])
