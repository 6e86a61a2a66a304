"""What each command asks the service for, and what it shows of the answer."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from diptych_artifactclient.commands.arguments import separated, type_name
from diptych_artifactclient.errors import (
    BadArgument,
    NoSuchArtifact,
    NotTheService,
    SeveralArtifacts,
)
from keystoneauth1.exceptions import BadRequest, Forbidden, NotFound

from tests import web
from tests.artifactclient.terminal import (
    COMMANDS,
    Answers,
    answer,
    artifacts,
    document,
    fields,
    refusal,
    run,
    shown,
)

ID = "5c4f8a5e-0d0b-4c46-a1c6-4a8fbc42b1b0"
PATH = f"/artifacts/images/{ID}"
BLOB = {"url": f"{PATH}/image", "status": "active", "size": 3, "sha256": None, "external": True}
ARTIFACT = {
    "id": ID,
    "name": "web",
    "version": "1.0.0",
    "owner": "project",
    "visibility": "private",
    "status": "drafted",
    "tags": ["one", "two"],
    "metadata": {"a": "b"},
    "image": BLOB,
    "unheard of": 1,
}
SCHEMA = {
    "version": "1.1",
    "properties": {
        "id": {"glareType": "String", "filter_ops": ["eq", "in"], "sortable": True},
        "name": {"glareType": "String", "required_on_activate": False},
        "status": {"glareType": "String", "mutable": True, "enum": ["drafted", "active"]},
        "tags": {"glareType": "StringList"},
        "metadata": {"glareType": "StringDict"},
        "image": {"glareType": "Blob"},
    },
}
FOUND = {"artifacts": [ARTIFACT]}


@pytest.fixture
def service(server: web.Web, answers: Answers) -> web.Web:
    """One artifact named `web`, of a type with a schema."""
    by_name = "GET /artifacts/images?version={}&name=eq:web"
    answers.by_request |= {
        "GET /schemas": {"schemas": {"images": SCHEMA, "all": {"version": "1.0"}}},
        "GET /schemas/images": {"schemas": {"images": SCHEMA}},
        by_name.format("latest"): FOUND,
        by_name.format("eq:1.0.0"): FOUND,
        f"GET {PATH}": ARTIFACT,
        f"PATCH {PATH}": ARTIFACT,
        f"DELETE {PATH}": answer(status=204),
        f"PUT {PATH}/image": ARTIFACT,
        f"DELETE {PATH}/image": ARTIFACT,
        "POST /artifacts/images": document(ARTIFACT, 201),
        "GET /quotas": {
            "quotas": [
                {"project_id": "p1", "project_quotas": [{"quota_name": "a", "quota_value": 1}]},
                {"project_id": "p2", "project_quotas": [{"quota_name": "b", "quota_value": 2}]},
            ],
            "global_quotas": {"max_artifact_number": 100},
        },
        "PUT /quotas": document(None),
        "GET /project-quotas/p1": [
            {"project_id": "p1", "project_quotas": [{"quota_name": "a", "quota_value": 1}]}
        ],
        "GET /project-quotas": [{"project_id": "p0", "project_quotas": []}],
    }
    return server


def changes(service: web.Web) -> Any:
    """The last request's JSON."""
    return json.loads(service.asked[-1].content)


def patched(service: web.Web) -> Any:
    """The operations of the one PATCH."""
    (patch,) = [asked for asked in service.asked if asked.method == "PATCH"]
    assert patch.headers["content-type"] == "application/json-patch+json"
    return json.loads(patch.content)


@pytest.mark.parametrize(
    ("line", "arguments", "operations"),
    [
        ("artifact activate", [], [("add", "/status", "active")]),
        ("artifact reactivate", [], [("add", "/status", "active")]),
        ("artifact deactivate", [], [("add", "/status", "deactivated")]),
        ("artifact publish", [], [("add", "/visibility", "public")]),
        ("artifact add tag", ["three"], [("add", "/tags/-", "three")]),
        ("artifact remove tag", ["two"], [("test", "/tags/1", "two"), ("remove", "/tags/1")]),
        (
            "artifact update",
            "-p name=x=y -p empty= -l tags=a,b -d metadata=c:d:e,f:g"
            " -r one -r metadata/a/b~0 -r tags",
            [
                ("replace", "/one", None),
                ("remove", "/metadata/a~1b~0"),
                ("add", "/name", "x=y"),
                ("add", "/empty", ""),
                ("add", "/tags", ["a", "b"]),
                ("add", "/metadata", {"c": "d:e", "f": "g"}),
            ],
        ),
    ],
)
def test_what_changes_an_artifact_is_one_patch(
    service: web.Web, line: str, arguments: list[str] | str, operations: list[tuple[object, ...]]
) -> None:
    more = arguments.split() if isinstance(arguments, str) else arguments
    assert fields(service.url, line, "image", "web", *more)["tags"] == ["one", "two"]
    keys = ("op", "path", "value")
    assert patched(service) == [dict(zip(keys, one, strict=False)) for one in operations]


@pytest.mark.parametrize(("line", "tag"), [("add tag", "one"), ("remove tag", "three")])
def test_tags_that_are_as_wanted_are_left(service: web.Web, line: str, tag: str) -> None:
    run(service.url, f"artifact {line}", "images", ID, tag, "--id")
    assert {asked.method for asked in service.asked} == {"GET"}


def test_a_tag_is_removed_where_it_is_by_now(service: web.Web, answers: Answers) -> None:
    order = [["two", "one"], ["one", "two"]]

    async def show(asked: web.Asked, writer: Any) -> None:
        await document({**ARTIFACT, "tags": order.pop()})(asked, writer)

    async def patch(asked: web.Asked, writer: Any) -> None:
        test, _ = json.loads(asked.content)
        late = test == {"op": "test", "path": "/tags/1", "value": "two"}
        await (refusal(400, "no") if late else document(ARTIFACT))(asked, writer)

    answers.by_request |= {f"GET {PATH}": show, f"PATCH {PATH}": patch}
    run(service.url, "artifact remove tag", "images", ID, "two", "--id")
    assert changes_of(service, "PATCH")[-1][1] == {"op": "remove", "path": "/tags/0"}

    answers.by_request |= {f"GET {PATH}": ARTIFACT, f"PATCH {PATH}": refusal(400, "never")}
    with pytest.raises(BadRequest, match="never"):
        artifacts(service.url).remove_tag("images", ID, "two")


def changes_of(service: web.Web, method: str) -> list[Any]:
    return [json.loads(asked.content) for asked in service.asked if asked.method == method]


def test_an_artifact_is_created(service: web.Web) -> None:
    run(
        service.url,
        *("artifact create", "image", "web", "-V", "1.0.0", "-p", "disk_format=iso"),
        *("-p", "name=not this", "-l", 'tags="a,b", c d,ü', "-d", "metadata=k:v"),
    )
    assert changes_of(service, "POST") == [
        {
            "name": "web",
            "version": "1.0.0",
            "disk_format": "iso",
            "tags": ["a,b", "c d", "ü"],
            "metadata": {"k": "v"},
        }
    ]


def test_all_fields_are_shown(service: web.Web) -> None:
    rows = shown(service.url, "artifact show", "images", "web")
    assert rows[0] == {"Field": "id", "Value": ID, "Glare type": "String"}
    assert {"Field": "image", "Value": BLOB, "Glare type": "Blob"} in rows
    # A type may add what its schema does not have.
    assert rows[-1] == {"Field": "unheard of", "Value": 1, "Glare type": ""}
    assert [asked.headers["x-auth-token"] for asked in service.asked] == ["the-token"] * 3
    table = run(service.url, "artifact show", "images", "web", "-V", "1.0.0")
    assert "| Field      | Value " in table
    # As glareclient has it.
    assert "'status': 'active'," in table
    assert '"id","String"' in run(
        service.url,
        "artifact show",
        "images",
        "web",
        "-f",
        "csv",
        "-c",
        "Field",
        "-c",
        "Glare type",
    )


def test_an_artifact_is_deleted(service: web.Web) -> None:
    assert run(service.url, "artifact delete", "images", "web") == ""
    assert [f"{asked.method} {asked.target}" for asked in service.asked][-1] == f"DELETE {PATH}"


def test_types_and_their_fields_are_listed(service: web.Web) -> None:
    assert shown(service.url, "artifact type-list") == [
        {"Name": "images", "Version": "1.1"},
        {"Name": "all", "Version": "1.0"},
    ]
    rows = shown(service.url, "artifact schema", "image")
    assert rows[0] == {
        "Name": "id",
        "Glare_type": "String",
        "Mutable": False,
        "Required": True,
        "Sortable": True,
        "Filters": ["eq", "in"],
        "Available_values": "",
    }
    assert (rows[1]["Required"], rows[2]["Mutable"]) == (False, True)
    assert rows[2]["Available_values"] == ["drafted", "active"]


def test_a_location_is_added_and_removed(service: web.Web) -> None:
    row = shown(
        service.url, "artifact location", "image", "web", "--url", "http://x/y", "--sha1", "z"
    )
    assert row == {"blob_property": "image", **BLOB}
    put = service.asked[-1]
    assert put.target == f"{PATH}/image"
    assert put.headers["content-type"] == "application/vnd+openstack.glare-custom-location+json"
    assert changes(service) == {"url": "http://x/y", "md5": None, "sha1": "z", "sha256": None}

    assert shown(service.url, "artifact remove-location", "image", "web") == {
        "blob_property": "image"
    }
    assert f"{service.asked[-1].method} {service.asked[-1].target}" == f"DELETE {PATH}/image"


def test_quotas_are_shown_and_set(service: web.Web) -> None:
    assert shown(service.url, "artifact quota list") == [
        {"Project": "", "Name": "max_artifact_number", "Value": 100},
        {"Project": "p1", "Name": "a", "Value": 1},
        {"Project": "p2", "Name": "b", "Value": 2},
    ]
    assert shown(service.url, "artifact quota show", "p1") == [{"Name": "a", "Value": 1}]
    assert shown(service.url, "artifact quota show") == []
    # What the project has beside them stays.
    run(service.url, "artifact quota set", "p1", "--quota", "max_uploaded_data:images=-1")
    run(service.url, "artifact quota set", "p1", "--unset", "a", "--quota", "c=3")
    kept, unset = [{one["quota_name"]: one["quota_value"] for one in each["project_quotas"]}
                   for (each,) in changes_of(service, "PUT")]  # fmt: skip
    assert kept == {"a": 1, "max_uploaded_data:images": -1}
    assert unset == {"c": 3}
    for bad in ("a", "a=b", "=1"):
        with pytest.raises(BadArgument):
            run(service.url, "artifact quota set", "p1", "--quota", bad)


class TestLists:
    """`artifact list`."""

    @pytest.fixture(autouse=True)
    def _pages(self, answers: Answers) -> None:
        """Fifty artifacts; `next` is on a full last page too, as Glare has it."""
        names = [f"{number:02}" for number in range(50)]

        async def page(asked: web.Asked, writer: Any) -> None:
            _, _, text = asked.target.partition("?")
            query = dict(part.split("=", 1) for part in text.split("&"))
            first = int(query.get("marker", -1)) + 1
            size = int(query["limit"])
            found = [{**ARTIFACT, "id": one, "type_name": "images"} for one in names][first:]
            body: dict[str, Any] = {"artifacts": found[:size]}
            if len(found) >= size:
                marker = found[size - 1]["id"]
                kept = "&".join(part for part in text.split("&") if not part.startswith("marker"))
                body["next"] = f"/artifacts/images?{kept}&marker={marker}"
            await document(body)(asked, writer)

        self.page = page

    @pytest.mark.parametrize(
        ("options", "expected", "pages"),
        [
            ([], 20, [20]),
            (["--limit", "20", "--page-size", "7"], 20, [7, 7, 6]),
            (["--limit", "21", "--page-size", "7"], 21, [7, 7, 7]),
            (["-l", "60", "-p", "25"], 50, [25, 25, 10]),
            (["--limit", "0", "--page-size", "30"], 50, [30, 30]),
            (["--limit", "3", "--marker", "40"], 3, [3]),
            (["--limit", "30", "--marker", "40"], 9, [20]),
        ],
    )
    def test_as_many_come_as_are_wanted(
        self, server: web.Web, answers: Answers, options: list[str], expected: int, pages: list[int]
    ) -> None:
        asked_for: list[int] = []

        async def any_page(asked: web.Asked, writer: Any) -> None:
            limit = next(part for part in asked.target.split("&") if "limit=" in part)
            asked_for.append(int(limit.rpartition("=")[2]))
            await self.page(asked, writer)

        answers.otherwise = any_page
        rows = shown(server.url, "artifact list", "images", *options)
        assert len(rows) == expected
        assert len({row["Id"] for row in rows}) == expected
        assert asked_for == pages

    def test_filters_and_sorts_reach_the_service_as_they_are(
        self, server: web.Web, answers: Answers
    ) -> None:
        answers.otherwise = self.page
        run(
            server.url,
            *("artifact list", "all", "-F", "name=like:a&b=%ü", "-F", "name=neq:x"),
            *("-S", "name:asc,created_at", "-m", "12"),
        )
        assert server.asked[0].target == (
            "/artifacts/all?name=like%3Aa%26b%3D%25%C3%BC&name=neq%3Ax&limit=20"
            "&marker=12&sort=name%3Aasc%2Ccreated_at"
        )

    def test_columns(self, server: web.Web, answers: Answers) -> None:
        answers.otherwise = self.page
        head = ["Id", "Name", "Version", "Owner", "Visibility", "Status"]
        (row,) = shown(server.url, "artifact list", "images", "-l", "1")
        assert list(row) == head
        (row,) = shown(server.url, "artifact list", "all", "-l", "1")
        assert list(row) == [*head[:3], "Type name", *head[3:]]

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            (["--sort", "name:up"], BadArgument),
            (["--filter", "name"], BadArgument),
            (["--limit", "-1"], SystemExit),
            (["--page-size", "x"], SystemExit),
        ],
    )
    def test_nonsense_is_not_sent(
        self, server: web.Web, options: list[str], error: type[BaseException]
    ) -> None:
        with pytest.raises(error):
            run(server.url, "artifact list", "images", *options)
        assert server.asked == []


def test_names_are_quoted_and_never_operators(service: web.Web, answers: Answers) -> None:
    answers.otherwise = document({"artifacts": []})
    library = artifacts(service.url)
    for name in ("a&b=c", "in:x,y", "or:eq:z", "ü/ö#?", "%41", " "):
        with pytest.raises(NoSuchArtifact, match="There is no artifact of type images"):
            library.find("images", name)
    assert [asked.target.partition("name=")[2] for asked in service.asked] == [
        "eq%3Aa%26b%3Dc",
        "eq%3Ain%3Ax%2Cy",
        "eq%3Aor%3Aeq%3Az",
        "eq%3A%C3%BC%2F%C3%B6%23%3F",
        "eq%3A%2541",
        "eq%3A+",
    ]


def test_an_ambiguous_name_is_told_with_the_ids(service: web.Web, answers: Answers) -> None:
    another = {**ARTIFACT, "id": "another", "visibility": "public", "type_name": "images"}
    answers.by_request["GET /artifacts/images?version=latest&name=eq:web"] = {
        "artifacts": [ARTIFACT, another]
    }
    with pytest.raises(SeveralArtifacts) as raised:
        run(service.url, "artifact delete", "images", "web")
    assert f"{ID}: owner project, private\n" in str(raised.value)
    assert "another: owner project, public, of type images" in str(raised.value)
    assert [asked.method for asked in service.asked] == ["GET"]


@pytest.mark.parametrize(
    ("blob", "path"),
    [
        ("image", "image"),
        ("folder/a b/ü.yaml", "folder/a%20b/%C3%BC.yaml"),
        ("folder/a//b", "folder/a%2F%2Fb"),
        ("folder/../../x", "folder/..%2F..%2Fx"),
        ("folder/a?b#c%2F", "folder/a%3Fb%23c%252F"),
    ],
)
def test_paths_of_blobs_are_quoted(service: web.Web, blob: str, path: str) -> None:
    with suppress(NotFound):
        artifacts(service.url).remove_location("images", ID, blob)
    assert service.asked[-1].target == f"{PATH}/{path}"


@pytest.mark.parametrize("blob", ["folder/..", "folder/.", "folder/", "..", "."])
def test_no_path_leads_out_of_the_artifact(service: web.Web, blob: str) -> None:
    with pytest.raises(BadArgument, match="no name or id"):
        artifacts(service.url).remove_location("images", ID, blob)
    with pytest.raises(BadArgument, match="no name or id"):
        run(service.url, "artifact delete", "images", blob.partition("/")[2] or "..", "--id")
    assert service.asked == []


def test_the_reason_of_a_refusal_is_told(service: web.Web, answers: Answers) -> None:
    answers.by_request[f"PATCH {PATH}"] = refusal(403, "Only drafts can be changed like that.")
    with pytest.raises(Forbidden, match="Only drafts can be changed like that"):
        run(service.url, "artifact update", "images", ID, "--id", "-p", "name=x")


@pytest.mark.parametrize(
    "other",
    [
        answer(b"<html>Hello</html>", headers={"Content-Type": "text/html"}),
        document({"versions": []}, 300),
        document({"artifacts": "elsewhere"}),
        document([]),
    ],
)
def test_another_service_is_told_as_such(server: web.Web, answers: Answers, other: Any) -> None:
    answers.by_request["GET /schemas"] = other
    with pytest.raises(NotTheService, match="--os-artifact-endpoint"):
        run(server.url, "artifact type-list")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("image", "images"),
        ("heat-template", "heat_templates"),
        ("heat_environments", "heat_environments"),
        ("tosca_template", "tosca_templates"),
        ("murano-packages", "murano_packages"),
        ("secret", "secrets"),
        ("my-own-type", "my-own-type"),
        ("sample_artifact", "sample_artifact"),
    ],
)
def test_types_have_other_names(given: str, meant: str) -> None:
    assert type_name(given) == meant


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        (" a , b c ", ["a", "b c"]),
        ('"a,b",c', ["a,b", "c"]),
        (r'"say \"a\\b\""', [r'say "a\b"']),
        ('""', [""]),
    ],
)
def test_values_between_commas(text: str, values: list[str]) -> None:
    assert separated(text) == values


@pytest.mark.parametrize("text", [",", "a,", ",a", "a,,b", '"a', 'a"b"', '"a"b', "   "])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(BadArgument):
        separated(text)


def test_no_command_is_left_out_here() -> None:
    """Those on blobs are in test_transfers.py."""
    here = (Path(__file__).read_text(), Path(__file__).with_name("test_transfers.py").read_text())
    assert len(COMMANDS) == 20
    assert [line for line in COMMANDS if not any(f'"{line}"' in text for text in here)] == []
