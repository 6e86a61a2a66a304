"""Signatures of images: what an image says of its own, and whether its bytes bear it out.

A signature is over a digest of the bytes. That digest is taken while they pass, like those that an
image has anyway, so nothing is read for it.

Source: cursive 0.3, signature_utils.py, by which Glance, Nova and `openstack image create` know
what is signed in which way; castellan 5.8, by which certificates are PEM. Unlike there, a
certificate must be valid at the time.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding
from diptych_common.errors import BadRequest

VALUE: Final = "img_signature"
HASH_METHOD: Final = "img_signature_hash_method"
KEY_TYPE: Final = "img_signature_key_type"
CERTIFICATE: Final = "img_signature_certificate_uuid"

PublicKey = rsa.RSAPublicKey | dsa.DSAPublicKey | ec.EllipticCurvePublicKey

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "SHA-224": hashes.SHA224(),
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
}
# The binary curves that cursive knows besides (SECT409K1 and its like) are in no `cryptography` any
# more. That the key is on the curve of its type cursive does not ask either: the certificate says
# which key it is.
_KEYS: Final[Mapping[str, type[PublicKey]]] = {
    "RSA-PSS": rsa.RSAPublicKey,
    "DSA": dsa.DSAPublicKey,
    "ECC_SECP384R1": ec.EllipticCurvePublicKey,
    "ECC_SECP521R1": ec.EllipticCurvePublicKey,
}


@dataclass(frozen=True, slots=True)
class Claim:
    """What an image says of its signature; how, and with whose key, its bytes are signed."""

    value: bytes
    hash_method: str
    key_type: str
    certificate_id: str


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that bytes must bear out, and the certificate of its key, in PEM."""

    claim: Claim
    certificate: str

    @property
    def digest(self) -> str:
        """The algorithm, as hashlib has it, whose digest of the bytes is signed."""
        return _HASHES[self.claim.hash_method].name

    def check(self, digests: Mapping[str, str]) -> None:
        """Raise BadRequest unless the signature is that of bytes with these digests."""
        method, value = _HASHES[self.claim.hash_method], self.claim.value
        prehashed = Prehashed(method)
        found = bytes.fromhex(digests[method.name])
        key = x509.load_pem_x509_certificate(self.certificate.encode()).public_key()
        try:
            match key:
                case rsa.RSAPublicKey():
                    # Any salt, as with cursive: the longest, which it asks for, is any where
                    # `cryptography` verifies. OpenSSL's own choice differs from release to release.
                    pss = padding.PSS(padding.MGF1(method), padding.PSS.AUTO)
                    key.verify(value, found, pss, prehashed)
                case ec.EllipticCurvePublicKey():
                    key.verify(value, found, ec.ECDSA(prehashed))
                case dsa.DSAPublicKey():
                    key.verify(value, found, prehashed)
                case _:
                    raise _refusal("the certificate has a key of another type.")
        except InvalidSignature:
            raise _refusal("the data is not what was signed.") from None
        # A key that is too short for the hash.
        except (ValueError, UnsupportedAlgorithm):
            raise _refusal("the key of the certificate cannot have made it.") from None

    def document(self) -> dict[str, str]:
        """A JSON object that `read` takes; nothing in it is secret."""
        return {
            "value": base64.b64encode(self.claim.value).decode(),
            "hash_method": self.claim.hash_method,
            "key_type": self.claim.key_type,
            "certificate_id": self.claim.certificate_id,
            "certificate": self.certificate,
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Signature":
        """The signature that `document` made this of."""
        return cls(
            Claim(
                value=base64.b64decode(document["value"]),
                hash_method=document["hash_method"],
                key_type=document["key_type"],
                certificate_id=document["certificate_id"],
            ),
            document["certificate"],
        )


def is_signed(properties: Mapping[str, str | None]) -> bool:
    """Whether an image says that it is signed: it does so with all four properties, or not."""
    return {VALUE, HASH_METHOD, KEY_TYPE, CERTIFICATE} <= properties.keys()


def claimed(properties: Mapping[str, str | None]) -> Claim | None:
    """What the image says of its signature, None if it is not signed; BadRequest for nonsense."""
    if not is_signed(properties):
        return None
    hash_method, key_type = properties[HASH_METHOD] or "", properties[KEY_TYPE] or ""
    if hash_method not in _HASHES:
        raise _refusal(f"{HASH_METHOD} must be one of {', '.join(_HASHES)}.")
    if key_type not in _KEYS:
        raise _refusal(f"{KEY_TYPE} must be one of {', '.join(_KEYS)}.")
    try:
        certificate_id = str(UUID(properties[CERTIFICATE] or ""))
    except ValueError:
        raise _refusal(f"{CERTIFICATE} must be a UUID.") from None
    try:
        # Line ends and the like do not count, as in cursive: `base64` breaks lines.
        value = base64.b64decode(_without_quotes(properties[VALUE] or "").encode())
    except binascii.Error:
        value = b""
    if not value:
        raise _refusal(f"{VALUE} must be a signature in base64.")
    return Claim(value, hash_method, key_type, certificate_id)


def signed(claim: Claim, certificate: bytes, *, now: datetime) -> Signature:
    """The signature that is claimed, if the certificate, in PEM, can be held against it.

    Raises BadRequest for a certificate that is none, that is not valid at the time, or whose key is
    not of the type.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate)
        key = found.public_key()
        begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise _refusal("the certificate is no X.509 certificate in PEM that can be used.") from None
    if not begins <= now <= ends:
        raise _refusal(
            f"the certificate is valid from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC"
            " only."
        )
    if not isinstance(key, _KEYS[claim.key_type]):
        raise _refusal(f"the key of the certificate is not for {claim.key_type}.")
    # Encoded anew: whatever else came with it goes nowhere.
    return Signature(claim, found.public_bytes(Encoding.PEM).decode())


def _without_quotes(text: str) -> str:
    """What is between b' and ', in which `openstack image create --sign-key-path` sends it.

    The client (openstackclient 10.5, openstacksdk 4.22) means the text and writes Python's notation
    of it, which Glance takes for another signature.
    """
    return text[2:-1] if text.startswith("b'") and text.endswith("'") else text


def _refusal(reason: str) -> BadRequest:
    return BadRequest(f"Signature verification failed: {reason}")
