"""What the clients do with the places of an image: those of API 2.17, those of `locations`."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.clients.clouds import CommandFailed, PasswordCloud, Raised
from tests.clients.conftest import Polled, Site

MakeImage = Callable[..., dict[str, Any]]
DATA = b"what is at the location"
SHA256 = {"os_hash_algo": "sha256", "os_hash_value": hashlib.sha256(DATA).hexdigest()}


@pytest.fixture
def url(site: Site, name: str) -> str:
    """Where DATA is."""
    return site.put(name, DATA)


def of_web(url: str, **metadata: str) -> dict[str, object]:
    return {"url": url, "metadata": {**metadata, "store": "web"}}


def test_glance_adds_the_location_of_an_image(
    demo: PasswordCloud, make_image: MakeImage, polled: Polled, http: httpx.Client, url: str
) -> None:
    image = make_image()["id"]
    demo.glance("add-location", image, "--url", url, "--validation-data", json.dumps(SHA256))
    shown = polled(image, lambda shown: shown["status"] == "active")
    assert (shown["size"], shown["stores"]) == (len(DATA), "web")
    assert shown.items() >= SHA256.items()
    assert http.get(shown["file"]).content == DATA
    with pytest.raises(CommandFailed, match="HTTP 409"):
        demo.glance("add-location", image, "--url", url)
    with pytest.raises(CommandFailed, match="HTTP 400"):
        demo.glance("add-location", make_image()["id"], "--url", "file:///etc/passwd")


def test_the_sdk_adds_and_reads_the_location_of_an_image(
    demo: PasswordCloud, admin: PasswordCloud, make_image: MakeImage, polled: Polled, url: str
) -> None:
    image = make_image()["id"]
    added = demo.sdk("image.add_image_location", image, url, validation_data=SHA256)
    assert added["url"] == url
    polled(image, lambda shown: shown["status"] == "active")
    [found] = admin.sdk("image.image_locations", image)
    assert (found["url"], found["metadata"]) == (url, {"store": "web"})
    assert admin.glanceclient("images.get_image_locations", image) == [of_web(url)]
    with pytest.raises(Raised) as raised:
        demo.sdk("image.image_locations", image)
    assert raised.value.name == "ForbiddenException"


def test_a_location_that_is_not_what_was_promised_is_no_image(
    demo: PasswordCloud, make_image: MakeImage, polled: Polled, url: str
) -> None:
    image = make_image()["id"]
    wrong = {**SHA256, "os_hash_value": "0" * 64}
    demo.glanceclient("images.add_image_location", image, url, wrong)
    shown = polled(image, lambda shown: "os_glance_import_message" in shown)
    assert (shown["status"], shown["size"]) == ("queued", None)


def test_glance_adds_describes_and_removes_locations(
    demo: PasswordCloud,
    admin: PasswordCloud,
    make_image: MakeImage,
    site: Site,
    url: str,
    name: str,
) -> None:
    image = make_image()["id"]
    sha512 = hashlib.sha512(DATA).hexdigest()
    given = ("--url", url, "--hash-algo", "sha512", "--hash-value", sha512)
    shown = demo.glance_shown("location-add", image, *given)
    assert shown["os_hash_algo"] == "sha512"
    assert shown["status"] == "active"
    assert demo.sdk("image.get_image", image)["locations"] == [of_web(url)]
    speed = {"speed": "88"}
    demo.glance("location-update", image, "--url", url, "--metadata", json.dumps(speed))
    [found] = demo.sdk("image.get_image", image)["locations"]
    assert found == of_web(url, **speed)
    with pytest.raises(CommandFailed, match="HTTP 403"):
        demo.glance("location-delete", image, "--url", url)
    # Its only one.
    with pytest.raises(CommandFailed, match="The last location"):
        admin.glance("location-delete", image, "--url", url)
    second = site.put(f"{name}-2", DATA)
    demo.glance("location-add", image, "--url", second)
    admin.glance("location-delete", image, "--url", url)
    assert demo.sdk("image.get_image", image)["locations"] == [of_web(second)]


def test_a_copy_is_told_of_by_its_location(
    demo: PasswordCloud, admin: PasswordCloud, make_image: MakeImage, http: httpx.Client, url: str
) -> None:
    image = make_image(data=DATA)["id"]
    # An owner may not: nobody compares what is there with what was uploaded.
    admin.glanceclient("images.add_location", image, url, {})
    assert demo.shown("image", "show", image)["properties"]["stores"] == "fast,web"
    assert demo.sdk("image.download_image", image, store_preferences=["web"]) == DATA.decode()
    admin.sdk("image.delete_image", image, store="fast")
    assert demo.shown("image", "show", image)["properties"]["stores"] == "web"
    assert http.get(f"/v2/images/{image}/file").content == DATA
