"""Every form of location that Glance has written for Swift, and the one that is written here."""

import contextlib
import string
from pathlib import Path
from urllib.parse import quote

import pytest
from diptych_store.drivers.swift import layout, references
from diptych_store.drivers.swift.layout import Location, parse_location
from diptych_store.drivers.swift.store import SwiftStore
from diptych_store.errors import BadLocation
from diptych_store.locations import check_key
from diptych_store.options.swift import SwiftOptions
from hypothesis import given
from hypothesis import strategies as st

ID = "4d3c8f1a-0b1e-4e5d-9c7a-2f6b8d9e0a1b"
KEYS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40).filter(
    lambda key: not key.startswith(".") and "/" not in key and key.isprintable()
)
SECRETS = st.text(string.ascii_letters + string.digits + "/+=:%-_ ", min_size=1, max_size=40)


def store(**more: object) -> SwiftStore:
    return SwiftStore(
        "here",
        SwiftOptions.model_validate(
            {
                "swift_store_auth_address": "https://keystone.example/v3",
                "swift_store_user": "service:glance",
                "swift_store_key": "secret",
                **more,
            }
        ),
    )


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (
            f"swift://service:glance:secret@keystone.example/v3/glance/{ID}",
            Location("glance", ID, url="https://keystone.example/v3", user="service:glance"),
        ),
        (
            f"swift+https://service%3Aglance:se%2Fcret@keystone.example:5000/v3/glance/{ID}",
            Location("glance", ID, url="https://keystone.example:5000/v3", user="service:glance"),
        ),
        (
            f"swift+http://service%3Aglance:a/b@c/d@10.0.0.1:5000/v3/glance_4d/{ID}",
            Location("glance_4d", ID, url="http://10.0.0.1:5000/v3", user="service:glance"),
        ),
        (
            f"swift+https://keystone.example/identity/v3/glance/{ID}",
            Location("glance", ID, url="https://keystone.example/identity/v3"),
        ),
        (
            f"swift+https://swift.example/v1/AUTH_abc/glance_{ID}/{ID}",
            Location(f"glance_{ID}", ID, url="https://swift.example/v1/AUTH_abc"),
        ),
        (f"swift+config://ref1/glance/{ID}", Location("glance", ID, reference="ref1")),
        ("swift+config://ref1/glance/a%3Fb%23c", Location("glance", "a?b#c", reference="ref1")),
    ],
)
def test_every_form_is_read(location: str, expected: Location):
    assert parse_location(location) == expected


@pytest.mark.parametrize(
    "location",
    [
        "swift://",
        "swift://container/key",
        "swift:///glance/key",
        f"swift+ftp://keystone.example/glance/{ID}",
        f"SWIFT+CONFIG://ref1/glance/{ID}",
        f"swift+config://ref1/{ID}",
        f"swift+config://ref1/v3/glance/{ID}",
        f"swift+config://user:key@ref1/glance/{ID}",
        f"swift+config://ref1//{ID}",
        f"swift+config://ref1/glance/{ID}/",
        f"swift+config://ref1/glance/{ID}?x",
        f"swift+config://ref1/glance/{ID}#x",
        f"swift+config://ref1/glance/{ID}\n",
        f"swift+config://ref1/gl%61nce/{ID}",
        f"swift+config://ref1/gl%2Fnce/{ID}",
        "swift+config://ref1/glance/%61",
        "swift+config://ref1/glance/a b",
        "swift+config://ref1/glance/a%2Fb",
        "swift+config://ref1/glance/..",
        "swift+config://ref1/glance/.hidden",
        f"swift://secret@keystone.example/v3/glance/{ID}",
        f"swift://a:b@key stone/v3/glance/{ID}",
        f"swift+https://keystone.example/../glance/{ID}",
        f"swift+https://swift.example/v1/%2e%2e/glance_{ID}/{ID}",
        f"swift+https://swift.example/v1/AUTH_a%2Fother%2Fname/glance_{ID}/{ID}",
        f"swift+https://keystone.example//v3/glance/{ID}",
        f"swift://user:pass@http://keystone.example/v1/glance/{ID}",
    ],
)
def test_what_nobody_has_written_is_refused(location: str):
    with pytest.raises(BadLocation):
        parse_location(location)


@given(reference=st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True), key=KEYS)
def test_a_location_is_read_as_it_was_written(reference: str, key: str):
    location = layout.reference_location(reference, "glance", key)
    assert parse_location(location) == Location("glance", key, reference=reference)
    assert location.isascii()


@given(account=st.from_regex(r"AUTH_[0-9a-f]{32}", fullmatch=True), key=KEYS)
def test_a_location_in_an_account_is_read_as_it_was_written(account: str, key: str):
    url = f"http://swift.example:8080/v1/{account}"
    container = layout.user_container("glance", key)
    location = layout.storage_location(url, container, key)
    assert parse_location(location) == Location(container, key, url=url)


@given(secret=SECRETS)
def test_a_secret_is_neither_needed_nor_kept(secret: str):
    # As Glance writes it: a slash stays.
    location = f"swift+https://service%3Aglance:{quote(secret)}@keystone.example/v3/glance/{ID}"
    parsed = parse_location(location)
    assert parsed == Location(
        "glance", ID, url="https://keystone.example/v3", user="service:glance"
    )
    assert store().recognises(location)


@given(text=st.text())
def test_any_text_is_a_location_or_refused(text: str):
    for location in (text, f"swift://{text}", f"swift+config://ref1/{text}"):
        with contextlib.suppress(BadLocation):
            parsed = parse_location(location)
            assert parsed.container
            assert check_key(parsed.key) == parsed.key


@pytest.mark.parametrize(
    ("location", "is_recognised"),
    [
        (f"swift://service:glance:old@keystone.example/v3/glance/{ID}", True),
        (f"swift://service:retired:old@keystone.example/v3/glance/{ID}", True),
        (f"swift+https://service%3Aglance:old@keystone.example/v3/glance_4d3/{ID}", True),
        (f"swift+https://service%3Aglance:old@keystone.example/v3/glance_4d3c8f1a-0/{ID}", True),
        (f"swift+https://service%3Aglance:old@keystone.example/glance/{ID}", True),
        (f"swift+config://ref1/glance/{ID}", True),
        (f"swift+config://ref2/glance/{ID}", False),
        (f"swift+config://ref1/other/{ID}", False),
        (f"swift+config://ref1/glance_ffff/{ID}", False),
        (f"swift://other:glance:old@keystone.example/v3/glance/{ID}", False),
        (f"swift://service:glance:old@other.example/v3/glance/{ID}", False),
        (f"swift+http://service:glance:old@keystone.example/v3/glance/{ID}", False),
        (f"swift+https://swift.example/v1/AUTH_abc/glance_{ID}/{ID}", False),
    ],
)
def test_a_store_knows_its_own(location: str, is_recognised: bool):
    assert store().recognises(location) is is_recognised


@pytest.mark.parametrize(
    ("seed", "key", "container"),
    [
        (0, ID, "glance"),
        (1, ID, "glance_4"),
        (3, "3A1B", "glance_3a1"),
        (8, ID, "glance_4d3c8f1a"),
        (9, ID, "glance_4d3c8f1a-0"),
        (32, ID, f"glance_{ID}"),
    ],
)
def test_containers_are_named_as_glance_and_ironic_name_them(seed: int, key: str, container: str):
    """Source: glance_store 5.7, SingleTenantStore.get_container_name."""
    assert layout.seeded_container("glance", key, seed) == container
    assert layout.is_container_of(container, "glance", key)


def test_references_come_from_glances_file(tmp_path: Path):
    file = tmp_path / "glance-swift.conf"
    file.write_text(
        "[ref1]\nuser = service:glance\nkey = 'a%b'\nauth_address = keystone.example/v3/\n"
        "project_domain_name = Ops\n"
        "[old]\nuser = other:glance\nkey = x\nauth_address = https://old.example/v3\n"
        "auth_version = 2\n"
    )
    found = store(swift_store_config_file=str(file))
    assert found.recognises(f"swift+config://old/glance/{ID}")
    assert found.recognises(f"swift://other:glance:old@old.example/v3/glance/{ID}")
    read = references.read(SwiftOptions(swift_store_config_file=str(file)))
    assert read["ref1"].key == "a%b"
    assert read["ref1"].address == "https://keystone.example/v3"
    assert read["ref1"].project_domain.document() == {"name": "Ops"}
    assert read["ref1"].user_domain.document() == {"id": "default"}
    assert read["old"].version == "3"
