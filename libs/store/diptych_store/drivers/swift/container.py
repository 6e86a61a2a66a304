"""A container as a store uses it: what is done with its objects one by one."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from diptych_store.drivers.swift import layout
from diptych_store.drivers.swift.client import Account, Client, decoded
from diptych_store.drivers.swift.layout import path_of
from diptych_store.errors import NotFound, Unreachable, WriteDenied
from diptych_store.tasks import gathered

# Requests at a time where there is one for each segment.
AT_A_TIME = 4
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class Piece:
    """An object that is part of another one; `etag` is empty where it isn't known."""

    container: str
    name: str
    size: int
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """A container of an account, for the store of the name `store`.

    `is_the_one` of all its images is never gone by right; one `of_one_image` goes with it.
    """

    store: str
    client: Client
    account: Account
    name: str
    is_the_one: bool = False
    of_one_image: bool = False
    makes_missing: bool = False
    headers_when_new: Mapping[str, str] = field(default_factory=dict[str, str])

    async def make(self) -> None:
        """Make the container if that is allowed; raises Unreachable if it isn't."""
        if not self.makes_missing:
            raise Unreachable(
                f"Store {self.store}: there is no container {self.name}; make it, or set "
                "swift_store_create_container_on_put."
            )
        await self.client.call(
            "write",
            self.account,
            "PUT",
            path_of(self.name),
            subject=f"container {self.name}",
            headers=self.headers_when_new,
        )

    async def leave(self, operation: str) -> None:
        """Something of the container has gone: remove it if it was for that alone."""
        if self.of_one_image:
            await self.client.call(
                operation,
                self.account,
                "DELETE",
                path_of(self.name),
                subject=f"container {self.name}",
                ok={HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT},
            )

    async def head(self, operation: str, name: str) -> Mapping[str, str] | None:
        """The headers of an object, as its latest replica has them; None if it isn't there."""
        path = path_of(self.name, name)
        return await self.client.head(operation, self.account, path, subject=name)

    def listed(self, operation: str, prefix: str) -> AsyncGenerator[Mapping[str, Any], None]:
        """What is there under a prefix, in the order of the names."""
        path = path_of(self.name)
        return self.client.listing(operation, self.account, path, prefix=prefix, subject=self.name)

    async def remove(self, operation: str, name: str) -> bool:
        """Remove one object; whether it was there."""
        answer = await self.client.call(
            operation,
            self.account,
            "DELETE",
            path_of(self.name, name),
            subject=name,
            ok={HTTPStatus.NOT_FOUND},
        )
        return answer.status != HTTPStatus.NOT_FOUND

    async def remove_numbered(self, operation: str, prefix: str, numbers: Iterable[int]) -> None:
        """Remove the segments or parts of these numbers, those that are there."""
        names = [layout.numbered(prefix, number) for number in numbers]
        await gathered(AT_A_TIME, [partial(self.remove, operation, one) for one in names])

    async def remove_listed(self, operation: str, prefix: str) -> None:
        """Remove all segments or parts of an attempt, those too that no listing shows yet."""
        found = [
            number
            async for entry in self.listed(operation, prefix)
            if (number := layout.number_of(str(entry["name"]))) is not None
        ]
        await self.remove_numbered(operation, prefix, found)
        following = max(found, default=0) + 1
        while await self.remove(operation, layout.numbered(prefix, following)):
            following += 1

    async def delete_manifest(self, operation: str, key: str) -> None:
        """Remove a static large object: its segments first, so that it can be tried again."""
        answer = await self.client.call(
            operation,
            self.account,
            "DELETE",
            path_of(self.name, key),
            subject=key,
            params={"multipart-manifest": "delete"},
            headers={"Accept": "application/json"},
            ok={HTTPStatus.NOT_FOUND},
        )
        if answer.status == HTTPStatus.NOT_FOUND:
            return
        # The status is sent before the work begins; the outcome is in the body.
        outcome = decoded(answer, dict[str, Any])
        failures = [str(error[1]) for error in outcome.get("Errors", [])]
        if any(failure.startswith(("401", "403")) for failure in failures):
            raise WriteDenied(f"Store {self.store}: {key} may not be deleted.")
        if failures or not str(outcome.get("Response Status", "")).startswith(("2", "404")):
            raise Unreachable(f"Store {self.store}: not all of {key} could be deleted.")

    async def pieces(self, key: str) -> list[Piece] | None:
        """The objects that make up an object; None for a manifest that names parts of objects."""
        found = await self.head("open", key)
        if found is None:
            raise await self.missing(key)
        if not is_static(found):
            pieces = await self.dynamic_pieces("open", key, found)
            size = int(found.get("Content-Length", "0"))
            return pieces or [Piece(self.name, key, size, etag_in(found))]
        answer = await self.client.call(
            "open",
            self.account,
            "GET",
            path_of(self.name, key),
            subject=key,
            params={"multipart-manifest": "get"},
        )
        pieces = list[Piece]()
        for entry in decoded(answer, list[dict[str, Any]]):
            if entry.keys() & {"range", "data", "sub_slo"}:
                return None
            container, _, name = str(entry["name"]).lstrip("/").partition("/")
            pieces.append(Piece(container, name, int(entry["bytes"]), str(entry["hash"])))
        return pieces

    async def dynamic_pieces(
        self, operation: str, key: str, found: Mapping[str, str]
    ) -> list[Piece]:
        """The segments of a dynamic large object, as Glance writes them; none of a plain one."""
        container, _, prefix = unquote(found.get("X-Object-Manifest", "")).partition("/")
        if not container or not prefix:
            return []
        there = replace(self, name=container)
        return [
            Piece(container, str(entry["name"]), int(entry["bytes"]), str(entry["hash"]))
            async for entry in there.listed(operation, prefix)
        ]

    async def missing(self, key: str) -> NotFound | Unreachable:
        """What to raise for an object that isn't there.

        The one container of all images is never gone by right: then another account or cluster
        answers, and nothing of it may be taken for deleted.
        """
        if self.is_the_one:
            path = path_of(self.name)
            if await self.client.head("open", self.account, path, subject=key) is None:
                return Unreachable(f"Store {self.store}: there is no container {self.name}.")
        return NotFound(f"Store {self.store} has no object {key}.")


def is_static(headers: Mapping[str, str]) -> bool:
    """Whether an object is a static large one."""
    return headers.get("X-Static-Large-Object", "").lower() == "true"


def etag_in(headers: Mapping[str, str]) -> str:
    """The ETag of an object, without quotes; empty if there is none."""
    return headers.get("ETag", "").strip('"')
