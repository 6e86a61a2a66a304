"""A store in the service's own account."""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from diptych_store.calls import OnCall, tell_nobody
from diptych_store.drivers.swift import attempts, layout, reading, references, tempurl
from diptych_store.drivers.swift.attempts import Begun
from diptych_store.drivers.swift.client import Account, Client
from diptych_store.drivers.swift.container import AT_A_TIME, Container, is_static
from diptych_store.drivers.swift.layout import Location, path_of
from diptych_store.drivers.swift.writing import MIB, Stream
from diptych_store.errors import AlreadyThere, BadLocation, ReadDenied, StoreError, WriteDenied
from diptych_store.locations import check_attempt, check_key, for_display
from diptych_store.options.swift import SwiftOptions
from diptych_store.protocol import WHOLE, Attempt, Block, ByteRange, Reading, Store
from diptych_store.retries import Retries
from diptych_store.tasks import finished, gathered
from diptych_store.threads import Threads


class SwiftStore:
    """Containers in the service's own account.

    Has the capabilities Copies, Measures, Presigns and Sweeps.
    """

    def __init__(
        self,
        name: str,
        options: SwiftOptions,
        *,
        read_only: bool = False,
        on_call: OnCall = tell_nobody,
    ) -> None:
        self.name = name
        self._options = options
        self._read_only = read_only
        try:
            self._references = references.read(options)
        except ValueError as error:
            raise StoreError(f"Store {name}: {error}") from None
        self._client = Client(name, options, on_call=on_call)
        self._tokens = {
            reference: self._client.tokens(one) for reference, one in self._references.items()
        }
        self._hashing = Threads(f"{name}-md5", count=2)
        self._digest: str | None = None

    # Locations.

    def recognises(self, location: str) -> bool:
        """See Store.recognises."""
        try:
            self._find(location)
        except BadLocation:
            return False
        return True

    def _find(self, location: str) -> tuple[Container, str]:
        """Where the object of a location is, and its key; asks nobody. Raises BadLocation."""
        parsed = layout.parse_location(location)
        reference = self._reference_of(parsed)
        base = self._options.swift_store_container
        if reference is None or not layout.is_container_of(parsed.container, base, parsed.key):
            raise BadLocation(f"{for_display(location)} is not a location of store {self.name}.")
        return self._container(self._account(reference), parsed.container), parsed.key

    def _reference_of(self, location: Location) -> str | None:
        if location.reference:
            return location.reference if location.reference in self._references else None
        project, colon, _ = location.user.partition(":")
        for name, reference in self._ordered_references():
            # The project says which account it is; users come and go. An application credential
            # does not tell its project, and its locations in Glance have no user.
            same_account = not colon or not reference.project or project == reference.project
            if same_account and _same_address(location.url, reference.address):
                return name
        return None

    def _ordered_references(self) -> list[tuple[str, references.Reference]]:
        default = self._options.default_swift_reference
        return sorted(self._references.items(), key=lambda item: item[0] != default)

    def _account(self, reference: str) -> Account:
        return Account(self._tokens[reference], lambda access: access.storage_url)

    def _place(self, key: str) -> Container:
        """Where a new object goes; raises BadLocation for what can be no key."""
        container = layout.seeded_container(
            self._options.swift_store_container,
            check_key(key),
            self._options.swift_store_multiple_containers_seed,
        )
        return self._container(self._account(self._options.default_swift_reference), container)

    async def _location(self, place: Container, key: str) -> str:
        return layout.reference_location(self._options.default_swift_reference, place.name, key)

    def _container(self, account: Account, name: str) -> Container:
        return Container(
            self.name,
            self._client,
            account,
            name,
            is_the_one=name == self._options.swift_store_container,
            makes_missing=self._options.swift_store_create_container_on_put,
        )

    # Writing.

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        """See Store.write."""
        place = self._writable(attempt)
        send = partial(
            attempts.send,
            place,
            attempt,
            Stream(blocks),
            self._hashing,
            usual=self._options.swift_store_large_object_chunk_size * MIB,
            size=size,
        )
        return await attempts.fill(place, attempt, send)

    # Publishing and discarding.

    async def publish(self, attempt: Attempt) -> str:
        """See Store.publish."""
        place = self._writable(attempt)
        # A manifest that arrives after somebody has cleaned up would stand in the way for ever.
        await finished(attempts.publish(place, attempt))
        return await self._location(place, attempt.key)

    async def discard(self, attempt: Attempt, *, published: bool = False) -> None:
        """See Store.discard."""
        place = self._writable(attempt)
        await finished(attempts.discard(place, attempt, published=published))

    # Reading.

    @asynccontextmanager
    async def open(self, location: str, range: ByteRange = WHOLE) -> AsyncGenerator[Reading, None]:
        """See Store.open."""
        place, key = self._find(location)
        retries = Retries(self._options.swift_store_retry_get_count)
        async with reading.opened(place, key, range, retries=retries) as found:
            yield found

    # Deleting.

    async def delete(self, location: str) -> None:
        """See Store.delete."""
        place, key = self._find(location)
        self._check_writable()
        await finished(self._delete(place, key))

    async def _delete(self, place: Container, key: str) -> None:
        found = await place.head("delete", key)
        if found is None:
            raise await place.missing(key)
        if is_static(found):
            await place.delete_manifest("delete", key)
        else:
            pieces = await place.dynamic_pieces("delete", key, found)
            # A prefix that is not the object's own may hold what belongs to others.
            own = [piece for piece in pieces if piece.name.startswith(f"{key}-")]
            await gathered(
                AT_A_TIME,
                [
                    partial(replace(place, name=piece.container).remove, "delete", piece.name)
                    for piece in own
                ],
            )
            await place.remove("delete", key)
        await place.leave("delete")

    # Capabilities.

    async def copy(
        self, attempt: Attempt, source: Store, location: str, *, temporary: bool = False
    ) -> int | None:
        """See Copies. Swift shares no bytes, so `temporary` makes no difference."""
        place = self._writable(attempt)
        if not isinstance(source, SwiftStore):
            return None
        origin, key = source._find(location)
        pieces = await origin.pieces(key)
        access = await self._client.access("copy", place.account)
        other = await source._client.access("open", origin.account)
        if pieces is None or not _same_cluster(access.storage_url, other.storage_url):
            return None
        limits = await self._client.limits(place.account)
        if len(pieces) > limits.max_segments:
            return None
        foreign = None if access.storage_url == other.storage_url else other.storage_url

        async def work(begun: Begun) -> list[tuple[int, str]]:
            begun.segments = len(pieces)
            return await attempts.copy_pieces("copy", place, attempt, pieces, account_url=foreign)

        try:
            return await attempts.fill(place, attempt, work)
        except WriteDenied:
            if foreign is not None:
                return None  # ours is not the account that may read there
            raise

    async def presign_get(self, location: str, *, expires: timedelta) -> str:
        """See Presigns. Raises ReadDenied where no key is set."""
        place, key = self._find(location)
        return await self._presigned(place, key, method="GET", expires=expires)

    async def presign_put(self, attempt: Attempt, *, part: int = 1, expires: timedelta) -> str:
        """See Presigns."""
        place = self._writable(attempt)
        if await place.head("presign", layout.marker(attempt)) is None:
            with suppress(AlreadyThere):
                await attempts.begin(place, attempt, writer=secrets.token_hex(8), by_url=True)
        name = layout.numbered(layout.parts(attempt), part)
        try:
            return await self._presigned(place, name, method="PUT", expires=expires)
        except ReadDenied as error:
            raise WriteDenied(str(error)) from None

    async def _presigned(
        self, place: Container, name: str, *, method: str, expires: timedelta
    ) -> str:
        access = await self._client.access("presign", place.account)
        key = self._options.swift_temp_url_key.get_secret_value()
        if not key:
            for level, path in (("Account", ""), ("Container", path_of(place.name))):
                found = await self._client.head("presign", place.account, path, subject=level)
                key = key or tempurl.key_in(found or {}, level=level)
        if not key:
            raise ReadDenied(f"Store {self.name}: no key for temporary URLs is set.")
        if self._digest is None:
            info = await self._client.info(access)
            self._digest = tempurl.digest_of(info.get("tempurl", {}).get("allowed_digests", ()))
        return tempurl.sign(
            access.storage_url,
            path_of(place.name, name),
            method=method,
            key=key,
            digest=self._digest,
            expires=expires,
        )

    async def free(self) -> int | None:
        """See Measures: what the quotas of the account and of the one container leave."""
        account = self._account(self._options.default_swift_reference)
        left: list[int] = []
        paths = {"Account": ""}
        if not self._options.swift_store_multiple_containers_seed:
            paths["Container"] = path_of(self._options.swift_store_container)
        for level, path in paths.items():
            found = await self._client.head("measure", account, path, subject=level) or {}
            quota = found.get(f"X-{level}-Meta-Quota-Bytes", "")
            used = found.get(f"X-{level}-Bytes-Used", "")
            if quota.isdecimal() and used.isdecimal():
                left.append(max(0, int(quota) - int(used)))
        return min(left, default=None)

    async def attempts(self, *, older_than: timedelta) -> AsyncIterator[Attempt]:
        """See Sweeps."""
        async for place in self._places():
            seen: set[Attempt] = set()
            for prefix in (layout.ATTEMPTS, layout.PARTS):
                async for entry in place.listed("list", prefix):
                    attempt = layout.attempt_of(str(entry["name"]))
                    if attempt is None or attempt in seen or not _is_older(entry, older_than):
                        continue
                    if await self._was_written_to(place, attempt, older_than):
                        continue
                    seen.add(attempt)
                    yield attempt

    async def _was_written_to(self, place: Container, attempt: Attempt, within: timedelta) -> bool:
        """Whether a segment or part of the attempt is not as old as that."""
        for prefix in (layout.segments(attempt), layout.parts(attempt)):
            async for entry in place.listed("list", prefix):
                if not _is_older(entry, within):
                    return True
        return False

    async def _places(self) -> AsyncIterator[Container]:
        """All containers of the store in the account that it is used in."""
        account = self._account(self._options.default_swift_reference)
        base = self._options.swift_store_container
        async for entry in self._client.listing("list", account, "", prefix=base, subject=base):
            name = str(entry["name"])
            if name == base or name.startswith(f"{base}_"):
                yield self._container(account, name)

    async def aclose(self) -> None:
        """See Store.aclose."""
        self._hashing.close()
        await self._client.aclose()

    # Common to all of these.

    def _writable(self, attempt: Attempt) -> Container:
        check_attempt(attempt)
        self._check_writable()
        return self._place(attempt.key)

    def _check_writable(self) -> None:
        if self._read_only:
            raise WriteDenied(f"Store {self.name} is read-only.")


def _same_cluster(storage_url: str, other: str) -> bool:
    return urlsplit(storage_url)[:2] == urlsplit(other)[:2]


def _same_address(url: str, address: str) -> bool:
    return _plain_address(url) == _plain_address(address)


def _plain_address(url: str) -> str:
    # `swift://` is `https`; a trailing slash and a version are sometimes left out.
    return url.rstrip("/").removesuffix("/v3").removesuffix("/v2.0")


def _is_older(entry: Mapping[str, Any], than: timedelta) -> bool:
    modified = datetime.fromisoformat(str(entry["last_modified"]))
    return modified.replace(tzinfo=UTC) < datetime.now(UTC) - than
