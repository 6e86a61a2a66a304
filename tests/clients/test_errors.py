"""Refusals, as the exceptions that programs catch, with our words in them.

openstacksdk shows no words of a refused update or upload: it asks for no kind of answer there, gets
plain text as from Glance, and doesn't read that.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dev.keystone import Keystone

from tests.clients.clouds import Cloud, Raised
from tests.clients.conftest import IMAGE_SIZE_CAP, MEMBER_QUOTA, TAG_QUOTA

RAW = {"disk_format": "raw", "container_format": "bare"}
MakeImage = Callable[..., dict[str, Any]]
EXCEPTIONS = {
    # status: (glanceclient's, openstacksdk's)
    400: ("HTTPBadRequest", "BadRequestException"),
    403: ("HTTPForbidden", "ForbiddenException"),
    404: ("HTTPNotFound", "NotFoundException"),
    409: ("HTTPConflict", "ConflictException"),
    413: ("HTTPOverLimit", "HttpException"),
    415: ("HTTPException", "HttpException"),
    503: ("HTTPServiceUnavailable", "HttpException"),
}


@pytest.fixture(params=["glanceclient", "old_glanceclient"])
def glanceclient(demo: Cloud, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """glanceclient of the user demo: with a session, and with an endpoint and a token."""
    return getattr(demo, request.param)


def refused(status: int, words: str, call: Callable[..., Any], *args: Any, **named: Any) -> None:
    """The call raises what that client has for the status, and a person can read the reason."""
    with pytest.raises(Raised) as raised:
        call(*args, **named)
    assert raised.value.name in EXCEPTIONS[status]
    assert str(status) in raised.value.message
    assert words in raised.value.message
    # WebOb's breaks end the message in JSON, and openstacksdk shows them as they are.
    message = raised.value.message.removesuffix("<br /><br />\n\n\n")
    for noise in ("<", "&lt;", "&amp;", "Traceback", "File "):
        assert noise not in message


def test_bad_requests(demo: Cloud, glanceclient: Callable[..., Any], make_image: MakeImage) -> None:
    image = make_image()["id"]
    refused(400, "size_min", demo.sdk, "image.images", size_min="much")
    refused(400, "size_min", glanceclient, "images.list", filters={"size_min": "much"})
    refused(400, "255", glanceclient, "image_tags.update", image, "x" * 256)
    refused(400, "255", demo.sdk, "image.add_tag", image, "x" * 256)
    refused(400, "no store nowhere", glanceclient, "images.upload", image, "x", backend="nowhere")
    refused(400, "announces 5 bytes", glanceclient, "images.upload", image, "x", image_size=5)


def test_forbidden(demo: Cloud, glanceclient: Callable[..., Any], make_image: MakeImage) -> None:
    protected = make_image(protected=True, data=b"data")["id"]
    words = f"Image {protected} is protected"
    refused(403, words, demo.sdk, "image.delete_image", protected)
    refused(403, words, glanceclient, "images.delete", protected)
    words = "rule publicize_image denies it"
    refused(403, words, demo.sdk, "image.create_image", "x", visibility="public", **RAW)
    refused(403, words, glanceclient, "images.create", name="x", visibility="public", **RAW)
    refused(403, words, glanceclient, "images.update", protected, visibility="public")
    refused(403, "", demo.sdk, "image.update_image", protected, visibility="public")


def test_not_found(demo: Cloud, glanceclient: Callable[..., Any], make_image: MakeImage) -> None:
    missing = str(uuid4())
    refused(404, missing, glanceclient, "images.get", missing)
    refused(404, missing, glanceclient, "images.delete", missing)
    refused(404, missing, glanceclient, "images.upload", missing, "data")
    refused(404, missing, demo.sdk, "image.get_image", missing)
    refused(404, missing, demo.sdk, "image.delete_image", missing, ignore_missing=False)
    assert demo.sdk("image.delete_image", missing) is None
    image = make_image()["id"]
    refused(404, "has no tag gone", glanceclient, "image_tags.delete", image, "gone")
    refused(404, "is not offered to x", glanceclient, "image_members.delete", image, "x")


def test_conflicts(
    demo: Cloud, glanceclient: Callable[..., Any], make_image: MakeImage, keystone: Keystone
) -> None:
    image = make_image(data=b"data")["id"]
    words = "is active; only queued images take data"
    refused(409, words, glanceclient, "images.upload", image, "again")
    words = f"The id {image} is or was that of another image"
    refused(409, words, glanceclient, "images.create", name="x", id=image, **RAW)
    refused(409, words, demo.sdk, "image.create_image", "x", id=image, **RAW)
    project = keystone.project_id("other")
    demo.sdk("image.add_member", image, member_id=project)
    words = f"already offered to {project}"
    refused(409, words, glanceclient, "image_members.create", image, project)
    refused(409, words, demo.sdk, "image.add_member", image, member_id=project)


def test_limits(demo: Cloud, glanceclient: Callable[..., Any], make_image: MakeImage) -> None:
    tags = [f"tag {number}" for number in range(TAG_QUOTA)]
    image = make_image(tags=tags)["id"]
    words = f"{TAG_QUOTA} tags"
    refused(413, words, glanceclient, "image_tags.update", image, "one more")
    refused(413, words, glanceclient, "images.create", name="x", tags=[*tags, "more"], **RAW)
    refused(413, words, glanceclient, "images.update", image, tags=[*tags, "more"])
    refused(413, "", demo.sdk, "image.add_tag", image, "one more")
    for member in range(MEMBER_QUOTA):
        demo.sdk("image.add_member", image, member_id=f"member-{member}")
    words = f"{MEMBER_QUOTA} members"
    refused(413, words, glanceclient, "image_members.create", image, "one-more")
    refused(413, words, demo.sdk, "image.add_member", image, member_id="one-more")


def test_data_beyond_the_limit_of_size_leaves_nothing(
    demo: Cloud,
    glanceclient: Callable[..., Any],
    make_image: MakeImage,
    tmp_path: Path,
    client_folder: Path,
) -> None:
    image = make_image()["id"]
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(IMAGE_SIZE_CAP + 1)
    refused(413, f"{IMAGE_SIZE_CAP} bytes", glanceclient, "images.upload", image, f"file:{large}")
    refused(413, "", demo.sdk, "image.create_image", f"of {image}", filename=str(large), **RAW)
    # openstacksdk deletes what it could not fill.
    assert demo.sdk("image.find_image", f"of {image}") is None
    shown = demo.sdk("image.get_image", image)
    assert (shown["status"], shown["size"]) == ("queued", None)
    assert not (client_folder / "fast" / image).exists()


def test_data_of_another_format_leaves_nothing(
    demo: Cloud, glanceclient: Callable[..., Any], make_image: MakeImage
) -> None:
    image = make_image(disk_format="qcow2")["id"]
    refused(415, "qcow2", glanceclient, "images.upload", image, "not a disk")
    assert demo.sdk("image.get_image", image)["status"] == "queued"
    qcow2 = {"disk_format": "qcow2", "data": "not a disk"}
    refused(415, "", demo.sdk, "image.create_image", f"of {image}", **qcow2)


def test_damaged_data_is_not_taken_for_the_image(
    glanceclient: Callable[..., Any], make_image: MakeImage, client_folder: Path
) -> None:
    image = make_image(data=b"data")["id"]
    (client_folder / "fast" / image).write_bytes(b"dat")
    refused(503, "is damaged in store fast", glanceclient, "images.data", image)
