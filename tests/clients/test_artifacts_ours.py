"""What our `openstack artifact …` can beyond glareclient's, at the daemon as it is deployed."""

import hashlib
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev import artifactclient
from dev.keystone import Keystone

from tests.clients.artifact_clouds import ArtifactCloud
from tests.clients.artifact_services import ArtifactDaemon, ArtifactService
from tests.clients.clouds import CommandFailed

pytestmark = pytest.mark.parametrize("artifact_service", ["diptych"], indirect=True)

DATA = os.urandom(1 << 16) * 8
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def make_artifact(artifacts_http: httpx.Client, name: str) -> Callable[..., dict[str, Any]]:
    """`make_artifact("images", "image", data)`: demo's, with that blob."""

    def make(
        kind: str, blob: str | None = None, data: bytes = DATA, **fields: Any
    ) -> dict[str, Any]:
        path = f"/artifacts/{kind}"
        made = artifacts_http.post(path, json={"name": name, **fields}).raise_for_status().json()
        if blob is not None:
            at = f"{path}/{made['id']}/{blob}"
            artifacts_http.put(at, content=data, headers=OCTETS).raise_for_status()
        return made

    return make


@pytest.mark.parametrize(
    ("kind", "blob"), [("images", "image"), ("heat_templates", "template")], ids=["files", "s3"]
)
def test_a_download_goes_on_from_its_part(
    our_client: ArtifactCloud,
    artifacts_http: httpx.Client,
    make_artifact: Callable[..., dict[str, Any]],
    name: str,
    kind: str,
    blob: str,
    tmp_path: Path,
) -> None:
    made = make_artifact(kind, blob)
    head = artifacts_http.head(f"/artifacts/{kind}/{made['id']}/{blob}").raise_for_status()
    file, part = tmp_path / "file", tmp_path / "file.part"
    note = tmp_path / "file.part.etag"
    download = ("download", kind, name, "--file", str(file))

    # What is there is not fetched again, or this would not be noticed.
    part.write_bytes(b"x" * 1000)
    note.write_text(head.headers["etag"])
    with pytest.raises(CommandFailed, match="The sha256 of what came"):
        our_client.artifact(*download)
    assert list(tmp_path.iterdir()) == []

    part.write_bytes(DATA[:1000])
    note.write_text(head.headers["etag"])
    our_client.artifact(*download)
    assert file.read_bytes() == DATA
    assert list(tmp_path.iterdir()) == [file]

    part.write_bytes(b"of another blob")
    note.write_text('"another"')
    our_client.artifact(*download)
    assert file.read_bytes() == DATA


async def test_data_of_unknown_length_is_streamed(
    our_client: ArtifactCloud,
    artifact_daemon: ArtifactDaemon,
    make_artifact: Callable[..., dict[str, Any]],
    name: str,
    tmp_path: Path,
) -> None:
    made = make_artifact("heat_templates")
    before = await artifact_daemon.bucket.everything()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(DATA,))
    writer.start()
    shown = our_client.blob("upload", "heat-template", name, stdin=pipe)
    writer.join()
    assert shown["size"] == len(DATA)
    assert shown["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert len(await artifact_daemon.bucket.everything()) == len(before) + 1

    # A file on standard input has a length.
    (tmp_path / "file").write_bytes(DATA[:100])
    key = "nested_templates/a/b ü?&#%.yaml"
    upload = ("upload", "heat-template", made["id"], "--id", "-p", key)
    assert our_client.blob(*upload, stdin=tmp_path / "file")["size"] == 100
    got = our_client.artifact("download", "heat-template", name, "-p", key)
    assert got.encode(errors="surrogateescape") == DATA[:100]


def test_blobs_are_where_their_type_has_them(
    our_client: ArtifactCloud,
    artifact_daemon: ArtifactDaemon,
    make_artifact: Callable[..., dict[str, Any]],
    name: str,
    tmp_path: Path,
) -> None:
    def files() -> set[Path]:
        return {path for path in artifact_daemon.files.rglob("*") if path.is_file()}

    make_artifact("images")
    before = files()
    (tmp_path / "file").write_bytes(DATA)
    our_client.artifact("upload", "image", name, "--file", str(tmp_path / "file"))
    (new,) = files() - before
    assert new.read_bytes() == DATA


def test_the_service_says_why_not(
    our_client: ArtifactCloud,
    artifacts_http: httpx.Client,
    make_artifact: Callable[..., dict[str, Any]],
    name: str,
) -> None:
    made = make_artifact("images")
    told = artifacts_http.post("/artifacts/images", json={"name": name}).json()["error"]["message"]
    with pytest.raises(CommandFailed) as raised:
        our_client.artifact("create", "images", name)
    assert told in str(raised.value)
    assert "HTTP 409" in str(raised.value)
    with pytest.raises(CommandFailed, match="It has none that is no folder"):
        our_client.artifact("download", "all", made["id"], "--id")
    assert our_client.fields("show", "images", name)["id"] == made["id"]


@pytest.mark.parametrize("length", ["known", "unknown"])
def test_data_beyond_the_limit_is_refused_with_the_reason(
    our_client: ArtifactCloud,
    make_artifact: Callable[..., dict[str, Any]],
    name: str,
    length: str,
    tmp_path: Path,
) -> None:
    make_artifact("heat_templates")
    large = b"x" * ((10 << 20) + 1)
    given = tmp_path / "given"
    upload = ("upload", "heat-template", name)
    if length == "known":
        given.write_bytes(large)
        with pytest.raises(CommandFailed, match="HTTP 413"):
            our_client.blob(*upload, "--file", str(given))
    else:
        os.mkfifo(given)
        writer = threading.Thread(target=_written, args=(given, large))
        writer.start()
        with pytest.raises(CommandFailed, match="HTTP 413"):
            our_client.blob(*upload, stdin=given)
        writer.join()
    assert our_client.fields("show", "heat-template", name)["template"] is None


def _written(pipe: Path, data: bytes) -> None:
    with suppress(BrokenPipeError):
        pipe.write_bytes(data)


@pytest.mark.parametrize("name", ["in:a,b", "a&b=c#d %41/ü", "2001-01-01T00:00:00"])
def test_any_name_is_found(
    our_client: ArtifactCloud, artifacts_http: httpx.Client, name: str
) -> None:
    our_client.artifact("create", "heat-environment", name)
    assert our_client.fields("show", "heat-environment", name)["name"] == name
    our_client.artifact("delete", "heat-environment", name)
    with pytest.raises(CommandFailed, match="There is no artifact of type heat_environments"):
        our_client.artifact("show", "heat-environment", name)


def test_quotas(our_client_of_admin: ArtifactCloud, keystone: Keystone) -> None:
    admin, project = our_client_of_admin, keystone.project_id("other")

    def listed() -> dict[str, int]:
        rows = admin.rows("quota list")
        return {row["Name"]: row["Value"] for row in rows if row["Project"] == project}

    def shown() -> dict[str, int]:
        return {row["Name"]: row["Value"] for row in admin.rows("quota show", project)}

    everybody = shown()
    admin.artifact("quota set", project, "--quota", "max_artifact_number=7")
    admin.artifact("quota set", project, "--quota", "max_uploaded_data:images=8")
    assert listed() == {"max_artifact_number": 7, "max_uploaded_data:images": 8}
    assert shown() == {**everybody, "max_artifact_number": 7, "max_uploaded_data:images": 8}
    admin.artifact("quota set", project, "--unset", "max_artifact_number")
    assert listed() == {"max_uploaded_data:images": 8}
    admin.artifact("quota set", project, "--unset", "max_uploaded_data:images")
    assert shown() == everybody


def test_the_program_itself(
    artifact_service: ArtifactService, clients_env: Path, keystone: Keystone, tmp_path: Path
) -> None:
    """With the address that is given instead of the catalog's, which has no such region."""
    environ = {
        "PATH": str(clients_env),
        "HOME": str(tmp_path),
        "PYTHONPATH": str(artifactclient.installed()),
        "OS_AUTH_URL": keystone.url,
        "OS_AUTH_TYPE": "v3token",
        "OS_TOKEN": keystone.token("demo", "demo"),
        "OS_PROJECT_NAME": "demo",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": "nowhere",
    }
    address = ("--os-artifact-endpoint", artifact_service.url)
    command = [clients_env / "openstack", *address, "artifact", "type-list", "-f", "value"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert "images 1.0\n" in done.stdout
