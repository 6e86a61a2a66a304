"""A store in the accounts of the users' projects."""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from functools import partial
from urllib.parse import quote

from diptych_store.drivers.swift import layout
from diptych_store.drivers.swift.auth import Access
from diptych_store.drivers.swift.client import Account
from diptych_store.drivers.swift.container import Container
from diptych_store.drivers.swift.layout import path_of
from diptych_store.drivers.swift.store import SwiftStore
from diptych_store.errors import BadLocation, NotFound, Unreachable
from diptych_store.locations import check_key, for_display


class MultiTenantSwiftStore(SwiftStore):
    """A container for each image, in the account of the image's project.

    Has the capabilities ActsForUsers and AccessLists besides. By itself it acts with the
    service's credentials, which have to be good for every account (Swift's reseller admin).
    """

    _project_id: str | None = None
    _user_token: str | None = None

    def acting_for(self, project_id: str, *, token: str | None) -> "MultiTenantSwiftStore":
        """See ActsForUsers."""
        acting = copy(self)
        acting._project_id = project_id
        acting._user_token = token
        return acting

    async def allow_reading(self, location: str, *, projects: Iterable[str], public: bool) -> None:
        """See AccessLists. "Everybody" are those who have a token, as in Glance."""
        place, key = self._find(location)
        self._check_writable()
        if await place.head("allow", key) is None:
            raise NotFound(f"Store {self.name} has no object {key}.")
        await self._client.call(
            "allow",
            place.account,
            "POST",
            path_of(place.name),
            subject=key,
            headers=self._lists(projects, public=public),
        )

    def _lists(self, projects: Iterable[str], *, public: bool) -> Mapping[str, str]:
        # No referrer lists (`.r:*`): they let those in who have no token at all.
        admins = [f"{project}:*" for project in self._options.swift_store_admin_tenants]
        readers = ["*:*"] if public else [f"{project}:*" for project in projects]
        return {
            "X-Container-Read": ",".join([*readers, *admins]),
            "X-Container-Write": ",".join(admins),
        }

    def _find(self, location: str) -> tuple[Container, str]:
        parsed = layout.parse_location(location)
        if parsed.reference or parsed.user:
            return super()._find(location)  # written before the store was a multi-tenant one
        base = self._options.swift_store_container
        endpoint = self._options.swift_store_endpoint
        if parsed.container != layout.user_container(base, parsed.key) or (
            endpoint and not _is_neighbour(parsed.url, endpoint)
        ):
            raise BadLocation(f"{for_display(location)} is not a location of store {self.name}.")

        def place(own: Access) -> str:
            # A token must not go to another cluster because a location says so.
            if not _is_neighbour(parsed.url, own.storage_url):
                raise BadLocation(
                    f"{for_display(location)} is not a location of store {self.name}."
                )
            return parsed.url

        return self._container(self._used(place), parsed.container), parsed.key

    def _place(self, key: str) -> Container:
        container = layout.user_container(self._options.swift_store_container, check_key(key))
        return self._container(self._account(self._options.default_swift_reference), container)

    def _account(self, reference: str) -> Account:
        if self._project_id is None or reference != self._options.default_swift_reference:
            return super()._account(reference)
        return self._used(partial(_account_of, self._project_id), outlasts_user=True)

    def _used(self, place: Callable[[Access], str], *, outlasts_user: bool = False) -> Account:
        return Account(
            self._tokens[self._options.default_swift_reference],
            place,
            user_token=self._user_token,
            outlasts_user=outlasts_user,
        )

    async def _location(self, place: Container, key: str) -> str:
        access = await self._client.access("publish", place.account)
        return layout.storage_location(access.storage_url, place.name, key)

    def _container(self, account: Account, name: str) -> Container:
        return Container(
            self.name,
            self._client,
            account,
            name,
            of_one_image=True,
            # Nobody else could make it: each image has its own.
            makes_missing=True,
            headers_when_new=self._lists((), public=False),
        )


def _account_of(project_id: str, own: Access) -> str:
    """The storage URL of a project's account, which differs from the service's by its id only."""
    if not own.project_id or not own.storage_url.endswith(own.project_id):
        raise Unreachable("The service's storage URL does not end with its project's id.")
    return own.storage_url.removesuffix(own.project_id) + quote(project_id, safe="")


def _is_neighbour(storage_url: str, own: str) -> bool:
    """Whether two storage URLs are of accounts of one cluster, with the same prefix."""
    before, _, account = storage_url.rpartition("/")
    own_before, _, own_account = own.rpartition("/")
    reseller, own_reseller = (name.rpartition("_")[0] for name in (account, own_account))
    return bool(account) and before == own_before and reseller == own_reseller
