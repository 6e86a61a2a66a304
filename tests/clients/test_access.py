"""Who gets in, by which kind of credential, and how far."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.clouds import Cloud, CommandFailed, Raised

MakeImage = Callable[..., dict[str, Any]]
AnyCloud = Callable[[str], Cloud]


def test_an_application_credential_does_what_its_user_may(cloud: AnyCloud, name: str) -> None:
    robot = cloud("robot")
    image = robot.sdk(
        "image.create_image",
        name,
        data="robot's",
        disk_format="raw",
        container_format="bare",
    )
    assert robot.sdk("image.download_image", image["id"]) == "robot's"
    robot.openstack("image", "delete", name)


@pytest.mark.parametrize("who", ["reader", "reading-robot"])
def test_a_reader_only_reads(cloud: AnyCloud, make_image: MakeImage, name: str, who: str) -> None:
    image = make_image(name=name, data=b"data")
    reader = cloud(who)
    assert [one["Name"] for one in reader.shown("image", "list", "--name", name)] == [name]
    assert reader.shown("image", "show", name)["id"] == image["id"]
    with pytest.raises(CommandFailed, match="rule add_image denies it"):
        reader.openstack("image", "create", f"{name} too")
    with pytest.raises(CommandFailed, match="rule delete_image denies it"):
        reader.openstack("image", "delete", name)
    with pytest.raises(Raised, match="rule download_image denies it"):
        reader.glanceclient("images.data", image["id"])
    with pytest.raises(Raised) as raised:
        reader.sdk("image.update_image", image["id"], name="mine")
    assert raised.value.name == "ForbiddenException"


def test_access_rules_narrow_an_application_credential(
    cloud: AnyCloud, make_image: MakeImage, name: str
) -> None:
    image = make_image(name=name)
    robot = cloud("listing-robot")
    [listed] = robot.sdk("image.images", name=name)
    assert listed["id"] == image["id"]
    with pytest.raises(Raised) as raised:
        robot.glanceclient("images.get", image["id"])
    assert raised.value.name == "HTTPUnauthorized"


def test_a_token_that_is_none_is_refused(cloud: AnyCloud) -> None:
    stranger = cloud("stranger")
    with pytest.raises(Raised, match="401") as raised:
        stranger.sdk("image.get_image", "x")
    assert raised.value.name == "HttpException"
    for call in (stranger.glanceclient, stranger.old_glanceclient):
        with pytest.raises(Raised, match="HTTP 401") as raised:
            call("images.get", "x")
        assert raised.value.name == "HTTPUnauthorized"


def test_an_image_of_another_project_is_not_there(
    other: Cloud, make_image: MakeImage, name: str
) -> None:
    image = make_image(name=name, data=b"data")
    assert other.sdk("image.find_image", name) is None
    for call in ("image.get_image", "image.download_image", "image.delete_image"):
        named = {"ignore_missing": False} if call == "image.delete_image" else {}
        with pytest.raises(Raised, match="404") as raised:
            other.sdk(call, image["id"], **named)
        assert raised.value.name == "NotFoundException"
