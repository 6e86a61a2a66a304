"""Keys, certificates and signatures of images, as users make them, and certificates in Barbican."""

import base64
import json
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from dev import ports
from dev.barbican import Barbican

HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "SHA-224": hashes.SHA224(),
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
}
KEY_TYPES = ("RSA-PSS", "DSA", "ECC_SECP384R1", "ECC_SECP521R1")
Key = rsa.RSAPrivateKey | dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def key(key_type: str = "RSA-PSS") -> Key:
    """A key of the type; the same one each time."""
    return _made(key_type)


@cache
def _made(key_type: str) -> Key:
    match key_type:
        case "RSA-PSS":
            return rsa.generate_private_key(65537, 2048)
        case "DSA":
            return dsa.generate_private_key(1024)
        case _:
            return ec.generate_private_key(getattr(ec, key_type.removeprefix("ECC_"))())


def certificate(
    of: Key, *, days: tuple[float, float] = (-1, 1), now: datetime | None = None
) -> bytes:
    """A certificate of the key, in PEM, that is valid between these days from now."""
    now = now or datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(of.public_key())
        .serial_number(1)
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .sign(key("ECC_SECP384R1"), hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


def signature(
    of: Key,
    data: bytes,
    hash_method: str = "SHA-256",
    *,
    salt: int | Any = padding.PSS.MAX_LENGTH,
) -> str:
    """The signature of the data, as an image has it."""
    method = HASHES[hash_method]
    match of:
        case rsa.RSAPrivateKey():
            made = of.sign(data, padding.PSS(padding.MGF1(method), salt), method)
        case dsa.DSAPrivateKey():
            made = of.sign(data, method)
        case ec.EllipticCurvePrivateKey():
            made = of.sign(data, ec.ECDSA(method))
    return base64.b64encode(made).decode()


def properties(
    data: bytes,
    certificate_id: str,
    *,
    key_type: str = "RSA-PSS",
    hash_method: str = "SHA-256",
) -> dict[str, str]:
    """What an image with this data says of its signature."""
    return {
        "img_signature": signature(key(key_type), data, hash_method),
        "img_signature_hash_method": hash_method,
        "img_signature_key_type": key_type,
        "img_signature_certificate_uuid": certificate_id,
    }


def kept(
    barbican: Barbican, token: str, payload: bytes, *, secret_type: str = "certificate"
) -> str:
    """The id of a new secret in Barbican."""
    document = {
        "secret_type": secret_type,
        "payload": base64.b64encode(payload).decode(),
        "payload_content_type": "application/octet-stream",
        "payload_content_encoding": "base64",
    }
    request = urllib.request.Request(
        f"{barbican.url}/v1/secrets",
        json.dumps(document).encode(),
        {"X-Auth-Token": token, "Content-Type": "application/json"},
    )
    with ports.direct.open(request) as answer:
        return json.load(answer)["secret_ref"].rpartition("/")[2]
