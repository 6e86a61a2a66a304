"""Every form of location that Glance has written is found in the store that has the object.

Source of the forms: glance_store 5.7; images API inventory, "Drivers".
"""

import pytest
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.drivers.http import HttpStore
from diptych_store.drivers.s3 import S3Store
from diptych_store.drivers.swift import SwiftStore
from diptych_store.errors import BadLocation
from diptych_store.locations import for_display, without_credentials
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.options.http import HttpOptions
from diptych_store.options.s3 import S3Options
from diptych_store.options.swift import SwiftOptions
from diptych_store.protocol import Store
from diptych_store.registry import Stores

IMAGE = "71c675ab-d94f-49cd-a114-e12490b328d9"
FSID = "6fb2cc8c-8f5b-4b1c-9d70-0a3d1b1e9b10"

# Each with the name of its store, or None where no store of this configuration can have it.
FORMS = [
    (f"file:///srv/images/{IMAGE}", "directory"),
    (f"filesystem:///srv/images/{IMAGE}", "directory"),
    (f"file:///srv/elsewhere/{IMAGE}", None),
    (f"s3://s3.example.org/images/{IMAGE}", "bucket"),
    (f"s3+http://s3.example.org/images/{IMAGE}", "bucket"),
    (f"s3+https://s3.example.org/images/{IMAGE}", "bucket"),
    (f"s3+https://AKIAOLD:canary@s3.example.org/images/{IMAGE}", "bucket"),
    (f"s3+https://AKIAOLD:canary/with+slashes/@s3.example.org/images/{IMAGE}", "bucket"),
    (f"s3://AKIAOLD:ca@n:ary/canary@s3.example.org/images/{IMAGE}", "bucket"),
    (f"s3+https://s3.example.org/archive/{IMAGE}", "archive"),
    (f"s3+https://AKIAOLD:canary@s3.example.org/other/{IMAGE}", None),
    (f"s3+https://s3.example.com/images/{IMAGE}", None),
    (f"swift+config://ref1/glance/{IMAGE}", "container"),
    (f"swift+config://other/glance/{IMAGE}", None),
    (f"swift+https://keystone.example.org/v3/glance/{IMAGE}", "container"),
    (f"swift+https://service%3Aglance:canary@keystone.example.org/v3/glance/{IMAGE}", "container"),
    (f"swift+https://service:glance:canary@keystone.example.org/v3/glance/{IMAGE}", "container"),
    (
        f"swift://service%3Aglance:canary/with+slash@keystone.example.org/v3/glance/{IMAGE}",
        "container",
    ),
    (f"swift+https://u:canary@keystone.example.org/v3/other/{IMAGE}", None),
    # A store of Ceph's needs its bindings: tests/store/test_rbd_locations.py has these.
    (f"rbd://{FSID}/images/{IMAGE}/snap", None),
    (f"rbd://{IMAGE}", None),
    (f"https://example.org/{IMAGE}.img", "web"),
    ("http://example.org:8080/a/b.img?c=d", "web"),
    ("https://user:canary@example.org/a.img", "web"),
    (f"cinder://{IMAGE}", None),
    (f"cinder://volumes/{IMAGE}", None),
    (f"vsphere://esx.example.org/folder/images/{IMAGE}?dcPath=dc1&dsName=ds1", None),
    ("sftp://user:canary@example.org/a", None),
    (IMAGE, None),
]


@pytest.fixture(scope="module")
def stores() -> Stores:
    """One or two stores of each other type; nobody is asked, so nobody need be there."""
    bucket = {
        "s3_store_host": "https://s3.example.org",
        "s3_store_access_key": "AKIANEW",
        "s3_store_secret_key": "another",
    }
    swift = {
        "swift_store_auth_address": "https://keystone.example.org/v3",
        "swift_store_user": "service:glance",
        "swift_store_key": "another",
    }
    made: list[Store] = [
        FilesystemStore("directory", FilesystemOptions(filesystem_store_datadir="/srv/images")),
        S3Store("bucket", S3Options.model_validate({**bucket, "s3_store_bucket": "images"})),
        S3Store("archive", S3Options.model_validate({**bucket, "s3_store_bucket": "archive"})),
        SwiftStore("container", SwiftOptions.model_validate(swift)),
        HttpStore("web", HttpOptions(), outbound=None),
    ]
    return Stores({store.name: store for store in made}, {}, is_multiple=True)


@pytest.mark.parametrize(("location", "name"), FORMS)
def test_a_location_leads_to_its_store(stores: Stores, location: str, name: str | None):
    if name is None:
        with pytest.raises(BadLocation) as raised:
            stores.by_location(location)
        assert "canary" not in str(raised.value)
    else:
        assert stores.by_location(location).name == name


@pytest.mark.parametrize(
    ("location", "name"), [(location, name) for location, name in FORMS if "canary" in location]
)
def test_without_its_credentials_it_leads_there_too(
    stores: Stores, location: str, name: str | None
):
    shown = without_credentials(location)
    assert "canary" not in shown + for_display(location)
    assert "AKIA" not in shown
    if name is not None:
        assert stores.by_location(shown).name == name


@pytest.mark.parametrize(
    "location", [location for location, _ in FORMS if "canary" not in location and "?" in location]
)
def test_what_belongs_to_a_location_of_vsphere_is_kept(location: str):
    kept = location if location.startswith("vsphere") else location.partition("?")[0]
    assert without_credentials(location) == kept


@pytest.mark.parametrize(
    "location",
    [location for location, _ in FORMS if "canary" not in location and "?" not in location][:-1],
)
def test_a_location_without_credentials_is_kept_verbatim(location: str):
    assert without_credentials(location) == location
