import json
import subprocess
import sys

import pytest
from dev import environments
from diptych_store.drivers.rbd.locations import RbdLocation, parse_location
from diptych_store.errors import BadLocation
from diptych_store.options.rbd import RbdOptions
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

FSID = "b0bb4d24-8ad9-4b0a-9a63-2b2f1f4c5a11"
IMAGE = "71c675ab-d94f-49cd-a114-e12490b328d9"
# What may be a name in a location: no control characters, no slash, no dot in front.
names = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=40
).filter(lambda name: not name.startswith(".") and len(name.encode()) <= 200)


@pytest.mark.parametrize(
    ("location", "parts"),
    [
        (f"rbd://{FSID}/images/{IMAGE}/snap", RbdLocation(IMAGE, FSID, "images", "snap")),
        (f"rbd://{IMAGE}", RbdLocation(IMAGE)),
        # Glance encodes all but letters, digits and `_.-~`.
        (
            "rbd://fsid/my%20pool/a%40b%252Fc/snap",
            RbdLocation("a@b%2Fc", "fsid", "my pool", "snap"),
        ),
        # The short form is as it was given.
        ("rbd://a%2Bb", RbdLocation("a%2Bb")),
    ],
)
def test_glance_s_locations_are_read_and_written_back(location: str, parts: RbdLocation):
    assert parse_location(location) == parts
    assert str(parts) == location


@pytest.mark.parametrize(
    "location",
    [
        "",
        "rbd://",
        "rbd:///",
        "rbd:/image",
        "RBD://image",
        "rbd://image/",
        "rbd://fsid/pool",
        "rbd://fsid/pool/image",
        "rbd://fsid/pool/image/",
        "rbd://fsid/pool/image/snap/more",
        "rbd://fsid//image/snap",
        "rbd://fsid/pool/a%2Fb/snap",
        "rbd://fsid/pool/%2Ehidden/snap",
        "rbd://fsid/pool/image/..",
        "rbd://fsid/pool/image/snap\n",
        "rbd://fsid/pool/im%00age/snap",
        "rbd://.attempt.token.image",
        "ceph://image",
    ],
)
def test_what_glance_cannot_have_written_is_refused(location: str):
    with pytest.raises(BadLocation):
        parse_location(location)


@given(names, names, names, names)
def test_every_location_is_read_as_it_was_written(fsid: str, pool: str, image: str, snapshot: str):
    location = RbdLocation(image, fsid, pool, snapshot)
    assert parse_location(str(location)) == location
    assert str(location).isascii()


@given(st.text())
def test_a_location_is_read_as_what_it_says_or_refused(text: str):
    location = f"rbd://{text}"
    try:
        parts = parse_location(location)
    except BadLocation:
        return
    assert parse_location(str(parts)) == parts
    if parts.fsid is None:
        assert str(parts) == location


GLANCE_S = """
import json
from glance_store._drivers import rbd
print(json.dumps({option.dest: option.default for option in rbd._RBD_OPTS}))
"""


def test_the_options_are_glance_s_with_its_defaults():
    python = environments.ready("glance_store") / "python"
    done = subprocess.run([python, "-c", GLANCE_S], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout).items() <= RbdOptions().model_dump().items()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rbd_store_chunk_size", "0"),
        ("rbd_store_chunk_size", "64"),  # RADOS has no objects as large for an image
        ("rbd_store_pool", ""),
        ("rbd_store_pool", "a/b"),
        ("rbd_store_timeout", "0"),
    ],
)
def test_an_option_that_cannot_be_is_refused(option: str, value: str):
    with pytest.raises(ValidationError):
        RbdOptions.model_validate({option: value})


@pytest.mark.parametrize(("option", "seconds"), [(-1, 7), (0, 7), (1, 1), (30, 30)])
def test_the_time_to_connect_is_that_of_a_request_unless_told(option: int, seconds: int):
    options = RbdOptions(rados_connect_timeout=option, rbd_store_timeout=7)
    assert options.connect_timeout_s == seconds


WITHOUT_BINDINGS = """
import sys
sys.modules["rados"] = None
from diptych_store.drivers.rbd import RbdStore
from diptych_store.options.rbd import RbdOptions
try:
    RbdStore("mine", RbdOptions())
except ImportError as error:
    print(error)
"""


def test_without_ceph_s_bindings_it_is_told_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_BINDINGS], capture_output=True, text=True, check=True
    )
    assert "python3-rados" in done.stdout
    assert "python3-rbd" in done.stdout
