import contextlib
import string
from pathlib import Path
from urllib.parse import quote

import pytest
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.errors import BadLocation
from diptych_store.locations import (
    LONGEST_KEY,
    check_key,
    file_location,
    for_display,
    split_file_location,
    without_credentials,
)
from diptych_store.options.filesystem import FilesystemOptions
from hypothesis import example, given
from hypothesis import strategies as st

# What a path can be twisted with, more often than chance would have it.
TWISTED = st.text(
    st.sampled_from("/.%2e\\\0\n :@?#~a-é🙂") | st.characters(exclude_categories=["Cs"]),
    max_size=40,
)
# What no secret of S3 or Swift has is `hunter2`, which marks the secret in what is shown.
SECRETS = st.tuples(
    st.text(st.sampled_from(string.ascii_letters + string.digits + "+/=@:%?#"), max_size=30),
    st.text(st.sampled_from(string.ascii_letters + string.digits + "+/=@:%?#"), max_size=30),
).map("hunter2".join)

# Where secrets are in locations, in every form that Glance or a user has written.
WITH_SECRETS = [
    "s3://AKIAEXAMPLE:{}@s3.example.org/bucket/key",
    "s3+https://AKIAEXAMPLE:{}@s3.example.org:9000/bucket/key",
    "s3+http://AKIAEXAMPLE:{}@[fd00::1]:9000/bucket/key",
    "S3+HTTPS://AKIAEXAMPLE:{}@s3.example.org/bucket/key",
    "swift://user:{}@auth.example.org/v2.0/glance/id",
    "swift+http://tenant:user:{}@auth.example.org:5000/v3/glance/id",
    "swift+https://tenant%3Auser:{}@auth.example.org/v3/glance/id",
    "http://user:{}@example.org/a.img",
    "https://user:{}@example.org:8443/a.img",
    "https://example.org/a.img?X-Amz-Signature={}",
    "https://example.org:8443/a.img?temp_url_sig={}&temp_url_expires=1",
    "https://example.org/a.img#{}",
    "vendor://user:{}@example.org/a",
    "vendor://example.org/a?token={}",
]


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


@pytest.mark.parametrize("form", WITH_SECRETS)
@given(secret=SECRETS)
@example(secret="hunter2")
@example(secret="hunter2/b@c:d/e=")
@example(secret="8/hunter2")
@example(secret="a@hunter2")
@example(secret="a?b:c@hunter2")
@example(secret="a:b@c/hunter2?d@e")
def test_a_secret_in_a_location_is_not_shown(form: str, secret: str):
    location = form.format(secret)
    assert "hunter2" not in for_display(location)
    if not location.startswith("http"):
        assert "hunter2" not in without_credentials(location)


@given(secret=SECRETS)
@example(secret="hunter2/b@c:d/e=")
def test_the_password_of_a_url_is_not_in_documents(secret: str):
    """A URL whose password is not encoded means another one to every client, so it has to be."""
    location = f"https://user:{quote(secret, safe='')}@example.org:8443/a/@b?c={secret}#{secret}"
    assert without_credentials(location) == "https://example.org:8443/a/@b"


@given(secret=SECRETS.filter(lambda secret: not set(secret) & set("?#")))
@example(secret="hunter2/b@c:d/e=")
def test_what_is_not_secret_is_still_told(secret: str):
    for scheme in ("s3", "s3+https", "s3+http"):
        rest = "s3.example.org:9000/bucket/key"
        old = f"{scheme}://AKIAEXAMPLE:{secret}@{rest}"
        assert for_display(old) == f"{scheme}://***@{rest}"
        assert without_credentials(old) == f"{scheme}://{rest}"
    old = f"swift+https://tenant%3Auser:{secret}@auth.example.org/v3/glance/id"
    assert for_display(old) == "swift+https://***@auth.example.org/v3/glance/id"
    assert without_credentials(old) == "swift+https://auth.example.org/v3/glance/id"


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://user:pw@host/a", "https://***@host/a"),
        ("https://user@host:8443/a", "https://***@host:8443/a"),
        ("https://host:8443/a", "https://host:8443/a"),
        # What could be a password with a slash is taken for one.
        ("https://host:8443/a/@b", "https://***@b"),
        ("https://host/a/@b", "https://host/a/@b"),
        ("https://host/a?X-Amz-Signature=hunter2#x", "https://host/a"),
        ("https://host/a?mail=a@b", "https://host/a"),
        ("https://host/a?at=1:2@3", "https://***"),
        ("https://a@b:c@host/", "https://***@host/"),
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
        "file:///var/lib/glance/images/3f1c",
        "file:///srv/a?b#c@d",
        "filesystem:///srv/a:b@d",
        "rbd://3f1c",
        "rbd://fsid/pool/image/snap",
        "rbd://fsid/po%2Fol/user:im@ge/snap",
        "cinder://3f1c",
        "cinder://fast/3f1c",
        "vsphere://host/folder/a/3f1c?dcPath=dc1&dsName=ds1",
        "s3://host/bucket/key@1",
        "s3+https://s3.example.org:9000/bucket/key",
        "swift+config://ref/container/object",
        "swift+https://storage.example.org:8080/v1/AUTH_1/glance_3f1c/3f1c",
        "https://host:8443/a",
    ],
)
def test_a_location_without_secrets_is_shown_as_it_is(location: str):
    assert for_display(location) == location
    assert without_credentials(location) == location


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://host:8443/@scope/a", "https://host:8443/@scope/a"),
        ("https://user@[fd00::1]:8443/@scope/a", "https://[fd00::1]:8443/@scope/a"),
        ("https://host?id=1", "https://host"),
        ("https://user:sesame/open@host/a", ""),
        ("sesame", ""),
        ("", ""),
    ],
)
def test_a_document_has_the_location_without_what_is_secret(location: str, shown: str):
    assert without_credentials(location) == shown


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
