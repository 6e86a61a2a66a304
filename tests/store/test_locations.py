import contextlib
import string
from pathlib import Path

import pytest
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.errors import BadLocation
from diptych_store.locations import (
    LONGEST_KEY,
    check_key,
    file_location,
    for_display,
    split_file_location,
)
from diptych_store.options.filesystem import FilesystemOptions
from hypothesis import example, given
from hypothesis import strategies as st

# What a path can be twisted with, more often than chance would have it.
TWISTED = st.text(
    st.sampled_from("/.%2e\\\0\n :@?#~a-é🙂") | st.characters(exclude_categories=["Cs"]),
    max_size=40,
)
SECRETS = st.text(
    st.sampled_from(string.ascii_letters + string.digits + "+/=@:%"), min_size=8, max_size=40
).filter(lambda secret: secret.strip("/@:") == secret)


@given(TWISTED)
@example("../../etc/passwd")
@example("..")
@example("%2e%2e/%2e%2e/etc/passwd")
@example("a/../../b")
@example(".attempts/x.y")
def test_no_location_leads_out_of_the_directory(rest: str):
    store = FilesystemStore(
        "here", FilesystemOptions(filesystem_store_datadir="/srv/images"), read_only=False
    )
    for location in (f"file:///srv/images/{rest}", f"filesystem:///srv/{rest}", f"file://{rest}"):
        with contextlib.suppress(BadLocation):
            path = store.local_path(location)
            assert path.parent == Path("/srv/images")
            assert path.name == location.removeprefix("file:///srv/images/").removeprefix(
                "filesystem:///srv/images/"
            )
            assert not path.name.startswith(".")


@given(TWISTED)
def test_a_key_that_is_accepted_comes_back(key: str):
    try:
        check_key(key)
    except BadLocation:
        return
    assert split_file_location(file_location("/srv/images", key)) == ("/srv/images", key)
    assert len(key.encode()) <= LONGEST_KEY
    assert Path("/srv/images", key).name == key


@given(secret=SECRETS, scheme=st.sampled_from(["s3", "s3+https", "s3+http"]))
@example(secret="a/b@c:d/e=", scheme="s3+https")
def test_the_secret_of_an_s3_location_is_not_shown(secret: str, scheme: str):
    shown = for_display(f"{scheme}://AKIAEXAMPLE:{secret}@s3.example.org:9000/bucket/key")
    assert shown == f"{scheme}://***@s3.example.org:9000/bucket/key"


@given(secret=SECRETS)
def test_the_secret_of_a_swift_location_is_not_shown(secret: str):
    shown = for_display(f"swift+https://tenant%3Auser:{secret}@auth.example.org/v3/glance/id")
    assert shown == "swift+https://***@auth.example.org/v3/glance/id"


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("file:///var/lib/glance/images/3f1c", "file:///var/lib/glance/images/3f1c"),
        ("file:///srv/a?b#c@d", "file:///srv/a?b#c@d"),
        ("rbd://fsid/pool/image/snap", "rbd://fsid/pool/image/snap"),
        ("https://user:pw@host/a", "https://***@host/a"),
        ("https://user@host:8443/a/@b", "https://***@host:8443/a/@b"),
        ("https://host:8443/a/@b", "https://host:8443/a/@b"),
        ("https://host/a?X-Amz-Signature=hunter2#x", "https://host/a"),
        ("https://a@b:c@host/", "https://***@host/"),
        ("s3://host/bucket/key@1", "s3://host/bucket/key@1"),
        ("swift+config://ref/container/object", "swift+config://ref/container/object"),
        ("hunter2", "(not a location)"),
        ("://hunter2", "(not a location)"),
        ("", "(not a location)"),
    ],
)
def test_a_location_is_shown_without_what_is_secret(location: str, shown: str):
    assert for_display(location) == shown


@pytest.mark.parametrize(
    "location",
    [
        "file://srv/images/a",
        "file:/srv/images/a",
        "file:a",
        "file://localhost/srv/images/a",
        "FILE:///srv/images/a",
        " file:///srv/images/a",
        "files:///srv/images/a",
        "swift+file:///srv/images/a",
    ],
)
def test_what_is_no_file_location_is_refused(location: str):
    with pytest.raises(BadLocation):
        split_file_location(location)
