"""What people do with `openstack image …`."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from dev.barbican import Barbican
from dev.keystone import Keystone

from tests.clients.clouds import Cloud, CommandFailed
from tests.clients.conftest import METHODS, MIB, STORES, tag_of
from tests.images import signing

QCOW2 = ("--disk-format", "qcow2", "--container-format", "bare")


def sha512(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()


def listed(cloud: Cloud, *arguments: str) -> list[str]:
    return [image["Name"] for image in cloud.shown("image", "list", *arguments)]


def test_an_image_is_shared_with_another_project(
    demo: Cloud, other: Cloud, keystone: Keystone, qcow2: Path, name: str, tmp_path: Path
) -> None:
    created = demo.shown("image", "create", "--file", str(qcow2), *QCOW2, name)
    assert created["status"] == "active"
    assert created["size"] == qcow2.stat().st_size
    assert created["virtual_size"] == MIB
    assert created["owner"] == keystone.project_id("demo")
    assert created["properties"]["os_hash_value"] == sha512(qcow2)
    assert listed(demo, "--name", name) == [name]
    assert listed(other, "--name", name) == []

    project = keystone.project_id("other")
    assert demo.shown("image", "add", "project", name, project)["status"] == "pending"
    assert name in listed(other, "--member-status", "pending")
    other.openstack("image", "set", "--accept", created["id"])
    assert listed(other, "--shared", "--name", name) == [name]
    assert [member["Status"] for member in demo.shown("image", "member", "list", name)] == [
        "accepted"
    ]

    other.openstack("image", "save", "--file", str(tmp_path / "copy"), name)
    assert (tmp_path / "copy").read_bytes() == qcow2.read_bytes()

    demo.openstack("image", "remove", "project", name, project)
    with pytest.raises(CommandFailed, match=f"No Image found for {name}"):
        other.openstack("image", "show", name)


def test_the_offer_of_an_image_is_rejected(
    demo: Cloud, other: Cloud, keystone: Keystone, name: str
) -> None:
    image = demo.shown("image", "create", *QCOW2, name)["id"]
    demo.openstack("image", "add", "project", name, keystone.project_id("other"))
    other.openstack("image", "set", "--reject", image)
    assert listed(other, "--name", name) == []
    assert (
        demo.shown("image", "member", "get", name, keystone.project_id("other"))["status"]
        == "rejected"
    )


def test_metadata_is_set_and_unset(demo: Cloud, name: str) -> None:
    demo.openstack("image", "create", *QCOW2, "--property", "os_distro=ubuntu", name)
    demo.openstack(
        *("image", "set", "--property", "hw_disk_bus=scsi", "--property", "a:b=c d=ü"),
        *("--os-version", "26.04", "--tag", "one", "--tag", "two/three", "--min-disk", "3"),
        *("--min-ram", "512", "--hidden", "--protected", "--community", "--name", f"{name}-2"),
        name,
    )
    shown = demo.shown("image", "show", f"{name}-2")
    assert (
        shown["properties"].items()
        >= {
            "os_distro": "ubuntu",
            "hw_disk_bus": "scsi",
            "a:b": "c d=ü",
            "os_version": "26.04",
            "os_hidden": True,
        }.items()
    )
    assert sorted(shown["tags"]) == ["one", "two/three"]
    assert (shown["min_disk"], shown["min_ram"]) == (3, 512)
    assert (shown["visibility"], shown["protected"]) == ("community", True)

    demo.openstack("image", "unset", "--property", "a:b", "--tag", "two/three", f"{name}-2")
    demo.openstack("image", "set", "--unprotected", "--private", "--unhidden", f"{name}-2")
    shown = demo.shown("image", "show", f"{name}-2")
    assert "a:b" not in shown["properties"]
    assert shown["tags"] == ["one"]
    assert (shown["visibility"], shown["protected"]) == ("private", False)

    demo.openstack("image", "delete", f"{name}-2")
    assert listed(demo, "--name", f"{name}-2") == []


def test_a_deactivated_image_is_not_saved(
    demo: Cloud, admin: Cloud, qcow2: Path, name: str, tmp_path: Path
) -> None:
    image = demo.shown("image", "create", "--file", str(qcow2), *QCOW2, name)["id"]
    admin.openstack("image", "set", "--deactivate", image)
    # openstacksdk takes the body of the refusal for the data, and finds its checksum wrong.
    with pytest.raises(CommandFailed, match="Unable to download image: checksum mismatch"):
        demo.openstack("image", "save", "--file", str(tmp_path / "copy"), name)
    admin.openstack("image", "set", "--activate", image)
    demo.openstack("image", "save", "--file", str(tmp_path / "copy"), name)
    assert sha512(tmp_path / "copy") == sha512(qcow2)


def test_a_protected_image_is_not_deleted(demo: Cloud, name: str) -> None:
    image = demo.shown("image", "create", *QCOW2, "--protected", name)["id"]
    with pytest.raises(CommandFailed, match=f"Image {image} is protected"):
        demo.openstack("image", "delete", name)
    assert listed(demo, "--name", name) == [name]


def test_a_public_image_is_seen_by_everyone(
    admin: Cloud, demo: Cloud, qcow2: Path, name: str, tmp_path: Path
) -> None:
    admin.openstack("image", "create", "--file", str(qcow2), *QCOW2, "--public", name)
    assert name in listed(demo, "--public")
    demo.openstack("image", "save", "--file", str(tmp_path / "copy"), name)
    assert sha512(tmp_path / "copy") == sha512(qcow2)
    with pytest.raises(CommandFailed, match="ForbiddenException: 403"):
        demo.openstack("image", "set", "--name", "mine", name)


def test_stores_and_import_methods_are_told(demo: Cloud) -> None:
    stores = demo.shown("image", "stores", "list")
    assert {store["ID"]: store["Default"] for store in stores} == {
        **dict.fromkeys(STORES),
        "fast": True,
    }
    assert demo.shown("image", "import", "info") == {"import-methods": list(METHODS)}


def test_an_image_is_signed_and_verified(
    demo: Cloud, barbican: Barbican, keystone: Keystone, qcow2: Path, name: str, tmp_path: Path
) -> None:
    token = keystone.token("demo", "demo")
    (tmp_path / "key.pem").write_bytes(
        signing.key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )

    def create(certificate: bytes) -> dict[str, Any]:
        certificate_id = signing.kept(barbican, token, certificate)
        return demo.shown(
            *("image", "create", "--file", str(qcow2), *QCOW2),
            *("--sign-key-path", str(tmp_path / "key.pem"), "--sign-cert-id", certificate_id),
            name,
            # The password of the key.
            typed="",
        )

    created = create(signing.certificate(signing.key()))
    assert created["status"] == "active"
    assert created["properties"]["img_signature_key_type"] == "RSA-PSS"
    another = rsa.generate_private_key(65537, 2048)
    # openstacksdk shows of an upload's error only what is in the status line.
    with pytest.raises(CommandFailed, match="BadRequestException: 400"):
        create(signing.certificate(another))


def test_a_large_image_comes_back_as_it_was(
    demo: Cloud, make_qcow2: Callable[[int], Path], name: str, tmp_path: Path
) -> None:
    large = make_qcow2(64 * MIB)
    created = demo.shown("image", "create", "--file", str(large), *QCOW2, name)
    assert created["virtual_size"] == 64 * MIB
    demo.openstack("image", "save", "--file", str(tmp_path / "copy"), name)
    assert sha512(tmp_path / "copy") == sha512(large)
    demo.openstack("image", "delete", name)


def test_the_programs_themselves(
    demo: Cloud, clients_env: Path, client_folder: Path, qcow2: Path, name: str
) -> None:
    environ = {
        "PATH": str(clients_env),
        "HOME": str(client_folder),
        "OS_CLIENT_CONFIG_FILE": str(client_folder / "clouds.yaml"),
        # Found by the address in clouds.yaml instead of Keystone's catalog.
        "OS_CLOUD": "overridden",
    }

    def openstack(*arguments: str, data: bytes | None = None) -> bytes:
        command = [clients_env / "openstack", "image", *arguments]
        return subprocess.run(
            command, env=environ, input=data, capture_output=True, check=True
        ).stdout

    openstack("create", *QCOW2, name, data=qcow2.read_bytes())
    assert openstack("save", name) == qcow2.read_bytes()


def test_lists_go_over_several_pages(demo: Cloud, sixty: list[str]) -> None:
    tagged = ("--tag", tag_of(sixty))
    assert listed(demo, *tagged) == sixty
    # The program sorts by name what the service gives newest first.
    newest = demo.shown("image", "list", *tagged, "--limit", "28")
    assert [image["Name"] for image in newest] == sixty[32:]
    assert listed(demo, *tagged, "--marker", newest[0]["ID"]) == sixty[:32]
