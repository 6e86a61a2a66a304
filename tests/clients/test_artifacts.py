"""What people do with `openstack artifact …`, ours and glareclient's, and with `glare …`."""

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev.keystone import Keystone

from tests.clients.artifact_clouds import ArtifactCloud
from tests.clients.clouds import CommandFailed, Raised

IMAGE = ("-p", "disk_format=qcow2", "-p", "container_format=bare")
DATA = bytes(range(256)) * 1000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that is no text."""
    path = tmp_path / "data"
    path.write_bytes(DATA)
    return path


def digests() -> dict[str, str]:
    return {one: hashlib.new(one, DATA).hexdigest() for one in ("md5", "sha1", "sha256")}


def names(cloud: ArtifactCloud, *arguments: str) -> list[str]:
    return [row["Name"] for row in cloud.rows("list", *arguments)]


def test_the_life_of_an_artifact(
    demo_artifacts: ArtifactCloud,
    admin_artifacts: ArtifactCloud,
    keystone: Keystone,
    name: str,
    file: Path,
    tmp_path: Path,
) -> None:
    demo, admin = demo_artifacts, admin_artifacts
    created = demo.fields(
        *("create", "images", name, "-V", "1.0.0", *IMAGE, "-l", "tags=one,two"),
        *("-d", "metadata=a:b,c:d"),
    )
    assert created["name"] == name
    assert created["owner"] == keystone.project_id("demo")
    assert (created["status"], created["visibility"]) == ("drafted", "private")
    assert (created["disk_format"], created["container_format"]) == ("qcow2", "bare")
    assert sorted(created["tags"]) == ["one", "two"]
    assert created["metadata"] == {"a": "b", "c": "d"}
    shown = demo.fields("show", "image", name)
    assert shown == created
    assert demo.fields("show", "images", created["id"], "--id") == created

    updated = demo.fields(
        *("update", "images", name, "-p", "min_ram=512", "-p", "description=x=y z"),
        *("-r", "metadata/a", "-V", "1.0.0"),
    )
    assert (updated["min_ram"], updated["description"]) == (512, "x=y z")
    assert updated["metadata"] == {"c": "d"}
    assert demo.fields("update", "images", name, "-r", "min_ram")["min_ram"] is None

    assert sorted(demo.fields("add tag", "images", name, "three")["tags"]) == [
        *("one", "three", "two"),
    ]
    assert sorted(demo.fields("remove tag", "images", name, "one")["tags"]) == ["three", "two"]

    uploaded = demo.blob(
        *("upload", "images", name, "--file", str(file), "-C", "application/x-qemu-disk")
    )
    assert uploaded["blob_property"] == "image"
    assert uploaded["content_type"] == "application/x-qemu-disk"
    assert (uploaded["size"], uploaded["status"]) == (len(DATA), "active")
    assert uploaded.items() >= digests().items()
    demo.artifact("download", "images", name, "--file", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == DATA
    printed = demo.artifact("download", "images", name, "-p", "image")
    assert printed.encode(errors="surrogateescape") == DATA

    assert demo.fields("activate", "images", name)["status"] == "active"
    with pytest.raises(CommandFailed, match="403"):
        demo.artifact("publish", "images", name)
    # By its id: others of the same name are the administrator's to see.
    by_id = (created["id"], "--id")
    assert admin.fields("deactivate", "images", *by_id)["status"] == "deactivated"
    assert admin.fields("reactivate", "images", *by_id)["status"] == "active"
    assert admin.fields("publish", "images", *by_id)["visibility"] == "public"
    with pytest.raises(CommandFailed, match="403"):
        demo.artifact("delete", "images", name)
    admin.artifact("delete", "images", *by_id)
    with pytest.raises(CommandFailed, match=name):
        demo.artifact("show", "images", name)


def test_folders_and_locations(
    demo_artifacts: ArtifactCloud, name: str, file: Path, tmp_path: Path, site: Any
) -> None:
    demo = demo_artifacts
    demo.artifact("create", "heat-template", name)
    key = f"nested_templates/some {name}.yaml"
    uploaded = demo.blob("upload", "heat-template", name, "--file", str(file), "-p", key)
    assert uploaded["blob_property"] == key
    assert uploaded["sha256"] == digests()["sha256"]
    demo.artifact("download", "heat-template", name, "-p", key, "--file", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == DATA

    # glareclient reads standard input as text.
    more = ("upload", "heat-template", name, "-p", "nested_templates/more")
    if demo.kind == "ours":
        assert demo.blob(*more, stdin=file)["sha256"] == digests()["sha256"]
    else:
        with pytest.raises(CommandFailed, match="'utf-8' codec can't"):
            demo.blob(*more, stdin=file)

    # What glareclient can tell of an external blob is what it was told.
    url = site.put(f"{name}.yaml", DATA)
    location = demo.blob(
        *("location", "heat-template", name, "--url", url, "--md5", digests()["md5"]),
        *("--sha1", digests()["sha1"], "--sha256", digests()["sha256"]),
    )
    assert location["blob_property"] == "template"
    assert (location["url"], location["external"]) == (url, True)
    assert location.items() >= digests().items()
    demo.artifact("download", "heat-template", name, "--file", str(tmp_path / "external"))
    assert (tmp_path / "external").read_bytes() == DATA
    if demo.kind == "ours":
        assert demo.blob("remove-location", "heat-template", name) == {"blob_property": "template"}
    else:
        # It shows a result and has none.
        with pytest.raises(CommandFailed, match="NoneType"):
            demo.artifact("remove-location", "heat-template", name)
    assert demo.fields("show", "heat-template", name)["template"] in (None, "None")
    demo.artifact("delete", "heat-template", name)


def test_types(demo_artifacts: ArtifactCloud) -> None:
    types = {row["Name"]: row["Version"] for row in demo_artifacts.rows("type-list")}
    assert types.keys() >= {"images", "heat_templates", "murano_packages", "all"}
    rows = {row["Name"]: row for row in demo_artifacts.rows("schema", "image")}
    assert rows["disk_format"]["Available_values"] == [
        *("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso"),
    ]
    assert (rows["disk_format"]["Mutable"], rows["disk_format"]["Required"]) == (False, True)
    assert (rows["tags"]["Mutable"], rows["tags"]["Glare_type"]) == (True, "StringList")
    assert rows["name"]["Filters"] == ["like", "eq", "neq", "in"]


def test_lists(demo_artifacts: ArtifactCloud, artifacts_http: httpx.Client, name: str) -> None:
    for number in range(5):
        body = {"name": f"{name}-{number}", "version": f"1.{number}.0", "tags": [name]}
        artifacts_http.post("/artifacts/images", json=body).raise_for_status()
    artifacts_http.post("/artifacts/heat_templates", json={"name": f"{name}-5", "tags": [name]})
    every = [f"{name}-{number}" for number in range(6)]
    mine = ("-F", f"tags={name}")
    demo = demo_artifacts
    assert names(demo, "images", *mine) == every[:5]
    assert names(demo, "all", *mine, "-p", "2") == every
    # The limit within a page, at the end of one, and at the end of all.
    assert names(demo, "images", *mine, "-l", "3", "-p", "2") == every[:3]
    assert names(demo, "images", *mine, "-l", "4", "-p", "2") == every[:4]
    assert names(demo, "images", *mine, "-l", "5", "-p", "5") == every[:5]
    assert names(demo, "images", *mine, "-S", "version:desc", "-F", "version=gte:1.3.0") == [
        *(every[4], every[3]),
    ]
    first, *_ = demo.rows("list", "images", *mine, "--limit", "1")
    assert list(first) == ["Id", "Name", "Version", "Owner", "Visibility", "Status"]
    assert names(demo, "images", *mine, "--marker", first["Id"]) == every[1:5]
    assert "Type name" in demo.rows("list", "all", *mine, "-l", "1")[0]
    table = demo.artifact("list", "images", *mine, "-l", "1")
    assert table.splitlines()[1].split("|")[1].strip() == "Id"


def test_the_artifact_that_a_name_means(
    demo_artifacts: ArtifactCloud,
    admin_artifacts: ArtifactCloud,
    artifacts_http: httpx.Client,
    name: str,
) -> None:
    for version in ("1.0.0", "2.0.0-rc", "2.0.0", "1.9.9"):
        body = {"name": name, "version": version}
        artifacts_http.post("/artifacts/images", json=body).raise_for_status()
    assert demo_artifacts.fields("show", "images", name)["version"] == "2.0.0"
    assert demo_artifacts.fields("show", "images", name, "-V", "1.0")["version"] == "1.0.0"
    with pytest.raises(CommandFailed, match=f"{name}.*3.0.0"):
        demo_artifacts.artifact("show", "images", name, "-V", "3.0.0")

    admins = admin_artifacts.fields("create", "images", name, "-V", "2.0.0")
    with pytest.raises(CommandFailed, match=admins["id"]):
        admin_artifacts.artifact("show", "images", name)


def test_the_help_of_the_program(demo_artifacts: ArtifactCloud) -> None:
    if demo_artifacts.kind == "glare":
        assert "<TYPE_NAME>" in demo_artifacts.artifact("help", "list")
        assert "activate" in demo_artifacts.artifact("bash-completion").split()
    else:
        assert "<TYPE_NAME>" in demo_artifacts.artifact("list", "--help")


@pytest.mark.parametrize("by", ["by_session", "by_token"])
def test_the_library(
    glareclient: ArtifactCloud,
    glareclient_of_admin: ArtifactCloud,
    by: str,
    name: str,
    file: Path,
    site: Any,
) -> None:
    call, call_as_admin = getattr(glareclient, by), getattr(glareclient_of_admin, by)
    images = {"type_name": "images"}
    formats = {"disk_format": "raw", "container_format": "bare"}
    made = call("artifacts.create", name, version="1.0.0", **images, **formats)
    assert (made["name"], made["version"]) == (name, "1.0.0")
    assert call("artifacts.get", made["id"], **images) == made
    assert call("artifacts.get_by_name", name, **images)["id"] == made["id"]
    changed = call("artifacts.update", made["id"], remove_props=["min_ram"], min_disk=1, **images)
    assert changed["min_disk"] == 1
    assert call("artifacts.add_tag", made["id"], "one", **images)["tags"] == ["one"]
    assert call("artifacts.remove_tag", made["id"], "one", **images)["tags"] == []
    call("artifacts.upload_blob", made["id"], "image", f"file:{file}", **images)
    got = call("artifacts.download_blob", made["id"], "image", **images)
    assert got.encode(errors="surrogateescape") == DATA
    assert call("artifacts.activate", made["id"], **images)["status"] == "active"
    assert call_as_admin("artifacts.deactivate", made["id"], **images)["status"] == "deactivated"
    assert call_as_admin("artifacts.reactivate", made["id"], **images)["status"] == "active"
    found = call("artifacts.list", filters=[("name", name)], limit=1, page_size=1, **images)
    assert [one["id"] for one in found] == [made["id"]]
    assert call_as_admin("artifacts.publish", made["id"], **images)["visibility"] == "public"
    call_as_admin("artifacts.delete", made["id"], **images)

    package = {"type_name": "murano_packages"}
    made = call("artifacts.create", name, **package)
    where = {"url": site.put(f"{name}.zip", DATA), **digests()}
    call("artifacts.add_external_location", made["id"], "package", where, **package)
    got = call("artifacts.download_blob", made["id"], "package", **package)
    assert got.encode(errors="surrogateescape") == DATA
    call("artifacts.remove_external_location", made["id"], "package", **package)
    assert call("artifacts.get", made["id"], **package)["package"] is None

    assert "images" in [type_name for type_name, _ in call("artifacts.get_type_list")]
    assert call("artifacts.get_type_schema", **images)["properties"].keys() >= formats.keys()
    # The service answers with 300, as Glare does.
    with pytest.raises(Raised, match="300"):
        call("versions.list")
