"""Makes certificates in the folder given. Run with the Python of Keystone's environment."""
# pyright: basic, reportMissingImports=false

import datetime
import ipaddress
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def write(path, certificate, key=None):
    text = certificate.public_bytes(serialization.Encoding.PEM)
    if key is not None:
        text += key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    path.write_bytes(text)


def named(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def signed(subject, key, issuer, issuer_key, *, until, extensions):
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 30 * DAY)
        .not_valid_after(until)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())


def authority(name):
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    extensions = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (usage, True),
    ]
    return key, signed(name, key, name, key, until=NOW + DAY, extensions=extensions)


def main(folder):
    ca_key, ca = authority("authority")
    write(folder / "ca.pem", ca)
    write(folder / "other-ca.pem", authority("another")[1])
    here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    for name, host, until in (
        ("good", here, NOW + DAY),
        ("wrong-name", x509.DNSName("keystone.example"), NOW + DAY),
        ("expired", here, NOW - DAY),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        names = [(x509.SubjectAlternativeName([host]), False)]
        certificate = signed(name, key, "authority", ca_key, until=until, extensions=names)
        write(folder / f"{name}.pem", certificate, key)


main(Path(sys.argv[1]))
