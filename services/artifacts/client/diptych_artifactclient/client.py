"""The Artifacts API v1, call by call. Bytes of blobs are in `transfers`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import requests
from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import BadRequest, ConnectFailure

from diptych_artifactclient.errors import (
    BadArgument,
    NoSuchArtifact,
    NotTheService,
    SeveralArtifacts,
    TransferFailed,
)
from diptych_artifactclient.transfers import Content, Outgoing, content, elsewhere

Document = dict[str, Any]
Operation = Mapping[str, object]
Pairs = list[tuple[str, str]]

_JSON_PATCH = "application/json-patch+json"
_LOCATION = "application/vnd+openstack.glare-custom-location+json"
# How often a tag is looked for anew, when others change the tags at the same time.
_TRIES = 5


@dataclass(frozen=True)
class Artifacts:
    """The service that an adapter leads to, for the user of its session.

    Types are named as the service names them (`images`), artifacts by their ids, blobs as `field`
    or `folder/key`. What the service refuses is raised as keystoneauth1's HttpError.
    """

    http: Adapter

    def types(self) -> dict[str, Document]:
        """The schemas of all types, by name."""
        return _document(self.http.get("/schemas"), "schemas")["schemas"]

    def schema(self, type_name: str) -> Document:
        """What the type's artifacts are like."""
        answer = self.http.get(f"/schemas/{_segment(type_name)}")
        return _document(answer, "schemas")["schemas"][type_name]

    def list(
        self,
        type_name: str,
        *,
        filters: Iterable[tuple[str, str]] = (),
        sort: str | None = None,
        marker: str | None = None,
        limit: int | None = None,
        page_size: int = 20,
    ) -> Iterator[Document]:
        """Artifacts of a type, of `all` with the type `all`; page by page, as they are taken.

        A filter is the name of a field and `[and:|or:][operator:]value`. No more than `limit` come,
        from the one after `marker` on.
        """
        path = f"/artifacts/{_segment(type_name)}"
        query: Pairs = [*filters, ("limit", ""), *_given(marker=marker, sort=sort)]
        left = limit
        while left is None or left > 0:
            size = page_size if left is None else min(page_size, left)
            query = [(name, str(size) if name == "limit" else value) for name, value in query]
            page = _document(self.http.get(f"{path}?{urlencode(query)}"), "artifacts")
            yield from page["artifacts"]
            if left is not None:
                left -= len(page["artifacts"])
            if "next" not in page:
                return
            query = parse_qsl(urlsplit(str(page["next"])).query, keep_blank_values=True)

    def find(self, type_name: str, name: str, version: str = "latest") -> Document:
        """The one artifact of that name and version that the user sees.

        Raises NoSuchArtifact, SeveralArtifacts.
        """
        # Without an operator, a name with a colon would be read as one.
        wanted = version if version == "latest" else f"eq:{version}"
        query = urlencode({"version": wanted, "name": f"eq:{name}"})
        answer = self.http.get(f"/artifacts/{_segment(type_name)}?{query}")
        found: list[Document] = _document(answer, "artifacts")["artifacts"]
        if not found:
            raise NoSuchArtifact(
                f"There is no artifact of type {type_name} with name {name} and version {version}."
            )
        if len(found) > 1:
            lines = [
                f"{one['id']}: owner {one['owner']}, {one['visibility']}"
                + (f", of type {one['type_name']}" if "type_name" in one else "")
                for one in found
            ]
            raise SeveralArtifacts(
                f"There are several artifacts with name {name} and version {version}."
                " Name one by its id and --id:\n" + "\n".join(lines)
            )
        return found[0]

    def show(self, type_name: str, artifact_id: str) -> Document:
        """One artifact."""
        return _document(self.http.get(_path(type_name, artifact_id)))

    def create(self, type_name: str, fields: Mapping[str, object]) -> Document:
        """Make a draft with these fields, `name` among them; the draft."""
        return _document(self.http.post(f"/artifacts/{_segment(type_name)}", json=dict(fields)))

    def change(self, type_name: str, artifact_id: str, changes: Sequence[Operation]) -> Document:
        """Carry out operations of JSON Patch (RFC 6902), all or none; the artifact after them."""
        answer = self.http.patch(
            _path(type_name, artifact_id), json=list(changes), headers={"Content-Type": _JSON_PATCH}
        )
        return _document(answer)

    def set(self, type_name: str, artifact_id: str, **fields: object) -> Document:
        """Give fields these values; `status` and `visibility` are changed like that too."""
        return self.change(
            type_name,
            artifact_id,
            [{"op": "add", "path": f"/{name}", "value": value} for name, value in fields.items()],
        )

    def add_tag(self, type_name: str, artifact_id: str, tag: str) -> Document:
        """Add a tag unless it is there. Tags that others add or remove meanwhile stay so."""
        shown = self.show(type_name, artifact_id)
        if tag in shown["tags"]:
            return shown
        added = {"op": "add", "path": "/tags/-", "value": tag}
        return self.change(type_name, artifact_id, [added])

    def remove_tag(self, type_name: str, artifact_id: str, tag: str) -> Document:
        """Remove a tag if it is there. Tags that others add or remove meanwhile stay so."""
        tries = 0
        while True:
            shown = self.show(type_name, artifact_id)
            if tag not in shown["tags"]:
                return shown
            path = f"/tags/{shown['tags'].index(tag)}"
            changes = [{"op": "test", "path": path, "value": tag}, {"op": "remove", "path": path}]
            try:
                return self.change(type_name, artifact_id, changes)
            except BadRequest:
                # The tag has another place by now, or none.
                tries += 1
                if tries == _TRIES:
                    raise

    def delete(self, type_name: str, artifact_id: str) -> None:
        """Delete an artifact with its blobs."""
        self.http.delete(_path(type_name, artifact_id))

    def upload(
        self, type_name: str, artifact_id: str, blob: str, data: Outgoing, content_type: str
    ) -> Document:
        """Store the data as the blob; the artifact after it. Raises TransferFailed, too."""
        try:
            answer = self.http.put(
                _path(type_name, artifact_id, blob),
                data=data,
                headers={"Content-Type": content_type},
                # The data is gone by then: a new token would send what is left of it, nothing.
                allow_reauth=False,
                # Nor would what is logged be of use.
                log=False,
            )
        except ConnectFailure as error:
            if not data.sent:
                raise
            # It may have answered before: whoever closes on unread data takes that back.
            raise TransferFailed(
                f"The service ended the connection within the first {data.sent} bytes, as it does"
                f" if it refuses the rest: {error}"
            ) from error
        return _document(answer)

    def download(
        self,
        type_name: str,
        artifact_id: str,
        blob: str,
        start: int = 0,
        etag: str | None = None,
    ) -> Content:
        """The blob's bytes, still to be read.

        They begin at `start` if the blob is still the one of that `etag`, else with the first.
        """
        ranged = {"Range": f"bytes={start}-", "If-Range": etag} if start and etag else {}
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", **ranged}
        answer = self.http.get(
            _path(type_name, artifact_id, blob),
            headers=headers,
            redirect=False,
            stream=True,
            # keystoneauth1 reads a whole answer for the log.
            log=False,
        )
        if answer.is_redirect:
            # Where the bytes are somewhere else, the token does not go.
            return elsewhere(answer, headers, verify=self.http.session.verify)
        return content(answer)

    def add_location(
        self, type_name: str, artifact_id: str, blob: str, location: Mapping[str, str | None]
    ) -> Document:
        """Say where the blob is: `url`, and its `md5` (which may be None), `sha1` and `sha256`."""
        answer = self.http.put(
            _path(type_name, artifact_id, blob),
            json=dict(location),
            headers={"Content-Type": _LOCATION},
        )
        return _document(answer)

    def remove_location(self, type_name: str, artifact_id: str, blob: str) -> None:
        """Take the location of a blob away."""
        self.http.delete(_path(type_name, artifact_id, blob))

    def quotas(self) -> Document:
        """`quotas`, a list by projects, and `global_quotas`, by names."""
        return _document(self.http.get("/quotas"), "quotas")

    def project_quotas(self, project_id: str | None = None) -> dict[str, int]:
        """What holds for a project, by names; for the user's own without one."""
        path = (
            "/project-quotas" if project_id is None else f"/project-quotas/{_segment(project_id)}"
        )
        (only,) = _decoded(self.http.get(path))
        return {one["quota_name"]: one["quota_value"] for one in only["project_quotas"]}

    def set_quotas(self, project_id: str, quotas: Mapping[str, int]) -> None:
        """Let a project have these quotas, and no others of its own."""
        named = [{"quota_name": name, "quota_value": value} for name, value in quotas.items()]
        self.http.put("/quotas", json=[{"project_id": project_id, "project_quotas": named}])


def _path(type_name: str, artifact_id: str, blob: str | None = None) -> str:
    path = f"/artifacts/{_segment(type_name)}/{_segment(artifact_id)}"
    if blob is None:
        return path
    field, folder, key = blob.partition("/")
    path = f"{path}/{_segment(field)}"
    if not folder:
        return path
    # Parts that paths are shortened by on their way are no parts of a path here.
    special = {"", ".", ".."} & set(key.split("/"))
    return f"{path}/{_segment(key, safe='' if special else '/')}"


def _segment(value: str, safe: str = "") -> str:
    """A part of a path. Raises BadArgument for what would lead to another path."""
    if value in ("", ".", ".."):
        raise BadArgument(f"{value!r} is no name or id that can be asked for.")
    return quote(value, safe=safe)


def _given(**parameters: str | None) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in parameters.items() if value is not None)


def _document(answer: requests.Response, *expected: str) -> Document:
    """The object that a route answers, with the keys that it has to have."""
    decoded = _decoded(answer)
    if isinstance(decoded, dict) and all(key in decoded for key in expected):
        return cast(Document, decoded)
    raise _other(answer)


def _decoded(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise _other(answer) from None


def _other(answer: requests.Response) -> NotTheService:
    return NotTheService(
        f"{answer.url} does not answer as an artifacts service does (HTTP {answer.status_code});"
        " --os-artifact-endpoint names another address."
    )
