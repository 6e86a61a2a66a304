"""What an image says of its signature, and which bytes bear it out."""

import base64
import hashlib
import json
from collections.abc import Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from diptych_common.errors import BadRequest
from diptych_images import signatures
from diptych_images.signatures import Signature

from tests.images import signing
from tests.images.signing import HASHES, KEY_TYPES, NOW

DATA = b"bytes of an image"
ID = "0f6b7a3e-3f5c-4a2e-9a56-0d1a6a3f2c11"


def digests(data: bytes = DATA) -> dict[str, str]:
    names = ("md5", "sha224", "sha256", "sha384", "sha512")
    return {name: hashlib.new(name, data).hexdigest() for name in names}


def signed(properties: Mapping[str, str], certificate: bytes) -> Signature:
    claim = signatures.claimed(properties)
    assert claim is not None
    return signatures.signed(claim, certificate, now=NOW)


@pytest.mark.parametrize("hash_method", HASHES)
@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_what_was_signed_is_what_bears_it_out(key_type: str, hash_method: str) -> None:
    properties = signing.properties(DATA, ID, key_type=key_type, hash_method=hash_method)
    found = signed(properties, signing.certificate(signing.key(key_type), now=NOW))
    found.check({found.digest: digests()[found.digest]})
    with pytest.raises(BadRequest, match="the data is not what was signed"):
        found.check(digests(DATA + b"."))
    # As by a job.
    again = Signature.read(json.loads(json.dumps(found.document())))
    assert again == found
    again.check(digests())


def test_another_key_has_not_signed() -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    properties = signing.properties(DATA, ID, key_type="ECC_SECP384R1")
    found = signed(properties, signing.certificate(other, now=NOW))
    with pytest.raises(BadRequest, match="the data is not what was signed"):
        found.check(digests())


@pytest.mark.parametrize("salt", [0, 20, 32])
def test_a_salt_is_as_long_as_it_is(salt: int) -> None:
    # 32 is what OpenSSL 3.1 takes where it is not told, and its predecessors the longest.
    value = signing.signature(signing.key(), DATA, salt=salt)
    properties = {**signing.properties(DATA, ID), "img_signature": value}
    signed(properties, signing.certificate(signing.key(), now=NOW)).check(digests())


def test_the_mask_is_made_by_the_same_hash() -> None:
    key = signing.key()
    assert isinstance(key, rsa.RSAPrivateKey)
    sha1 = hashes.SHA1()
    pss = padding.PSS(padding.MGF1(sha1), padding.PSS.MAX_LENGTH)
    value = base64.b64encode(key.sign(DATA, pss, hashes.SHA256())).decode()
    properties = {**signing.properties(DATA, ID), "img_signature": value}
    found = signed(properties, signing.certificate(key, now=NOW))
    with pytest.raises(BadRequest, match="the data is not what was signed"):
        found.check(digests())


def test_the_curve_is_the_keys() -> None:
    properties = {
        **signing.properties(DATA, ID, key_type="ECC_SECP521R1"),
        "img_signature_key_type": "ECC_SECP384R1",
    }
    signed(properties, signing.certificate(signing.key("ECC_SECP521R1"), now=NOW)).check(digests())


def test_a_key_that_is_too_short_for_its_hash_has_made_nothing() -> None:
    short = rsa.generate_private_key(65537, 1024)
    properties = {
        **signing.properties(DATA, ID, hash_method="SHA-512"),
        "img_signature": base64.b64encode(bytes(128)).decode(),
    }
    found = signed(properties, signing.certificate(short, now=NOW))
    with pytest.raises(BadRequest, match="Signature verification failed"):
        found.check(digests())


def test_an_image_without_one_of_the_properties_is_not_signed() -> None:
    properties = signing.properties(DATA, ID)
    for name in properties:
        left = {other: value for other, value in properties.items() if other != name}
        assert signatures.claimed(left) is None
        assert not signatures.is_signed(left)
    assert signatures.is_signed(properties)


def test_line_ends_in_a_signature_do_not_count() -> None:
    properties = signing.properties(DATA, ID)
    broken = {**properties, "img_signature": "\n".join([*properties["img_signature"], ""])}
    assert signatures.claimed(broken) == signatures.claimed(properties)


def test_a_signature_may_be_quoted_as_openstack_does() -> None:
    properties = signing.properties(DATA, ID)
    quoted = {**properties, "img_signature": repr(properties["img_signature"].encode())}
    assert signatures.claimed(quoted) == signatures.claimed(properties)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("img_signature", "", "must be a signature in base64"),
        ("img_signature", "b''", "must be a signature in base64"),
        ("img_signature", "b'", "must be a signature in base64"),
        ("img_signature", "YQ", "must be a signature in base64"),
        ("img_signature", "\N{SNOWMAN}", "must be a signature in base64"),
        ("img_signature_hash_method", "SHA-1", "must be one of SHA-224, SHA-256, SHA-384, SHA-512"),
        ("img_signature_hash_method", "sha256", "must be one of"),
        ("img_signature_hash_method", None, "must be one of"),
        ("img_signature_key_type", "RSA", "must be one of RSA-PSS, DSA, ECC_SECP384R1"),
        ("img_signature_key_type", "ECC_SECT571K1", "must be one of"),
        ("img_signature_certificate_uuid", "../../v1/secrets", "must be a UUID"),
        ("img_signature_certificate_uuid", None, "must be a UUID"),
    ],
)
def test_nonsense_is_refused(name: str, value: str | None, message: str) -> None:
    properties: dict[str, str | None] = {**signing.properties(DATA, ID), name: value}
    with pytest.raises(BadRequest, match=message):
        signatures.claimed(properties)


@pytest.mark.parametrize(
    ("days", "is_valid"),
    [((-2, -1), False), ((1, 2), False), ((0, 1), True), ((-1, 0), True)],
    ids=["over", "to come", "begins", "ends"],
)
def test_a_certificate_is_valid_when_it_is_used(days: tuple[float, float], is_valid: bool) -> None:
    properties = signing.properties(DATA, ID)
    certificate = signing.certificate(signing.key(), days=days, now=NOW)
    if is_valid:
        signed(properties, certificate).check(digests())
    else:
        with pytest.raises(BadRequest, match=r"valid from 2026-0\d-\d\d 00:00 to 2026-0\d-\d\d"):
            signed(properties, certificate)


@pytest.mark.parametrize("key_type", KEY_TYPES)
@pytest.mark.parametrize("other", ["RSA-PSS", "DSA", "ECC_SECP384R1"])
def test_the_key_is_of_the_type_that_is_told(key_type: str, other: str) -> None:
    certificate = signing.certificate(signing.key(other), now=NOW)
    properties = signing.properties(DATA, ID, key_type=key_type)
    if other.partition("_")[0] == key_type.partition("_")[0]:
        signed(properties, certificate)
    else:
        with pytest.raises(BadRequest, match=f"not for {key_type}"):
            signed(properties, certificate)


@pytest.mark.parametrize(
    "certificate",
    [
        b"",
        b"hello",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        # In DER, which castellan does not take either.
        x509.load_pem_x509_certificate(signing.certificate(signing.key(), now=NOW)).public_bytes(
            Encoding.DER
        ),
    ],
    ids=["nothing", "text", "broken", "der"],
)
def test_what_is_no_certificate_is_refused(certificate: bytes) -> None:
    with pytest.raises(BadRequest, match=r"no X\.509 certificate in PEM"):
        signed(signing.properties(DATA, ID), certificate)


def test_a_key_on_a_curve_that_nobody_knows_is_refused() -> None:
    # prime192v1 in place of the curve of the key.
    key = ec.generate_private_key(ec.SECP256R1())
    pem = signing.certificate(key, now=NOW)
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    named, other = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030104")
    assert named in der
    body = base64.encodebytes(der.replace(named, other))
    pem = b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"
    with pytest.raises(BadRequest, match=r"no X\.509 certificate in PEM that can be used"):
        signed(signing.properties(DATA, ID, key_type="ECC_SECP384R1"), pem)


def test_nothing_goes_on_but_the_certificate() -> None:
    private = signing.key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate = signing.certificate(signing.key(), now=NOW)
    found = signed(signing.properties(DATA, ID), certificate + private)
    assert found.certificate.encode() == certificate
