"""Places in the real Swift for one test: a container of tempauth's, or projects of Keystone's."""

import uuid
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
from dev.keystone import PASSWORD, Keystone
from dev.swift import RESELLER_ROLE, Swift
from diptych_store.calls import OnCall, tell_nobody
from diptych_store.drivers.swift import MultiTenantSwiftStore, SwiftStore
from diptych_store.options.swift import SwiftOptions

TEMP_URL_KEY = "canary-of-temporary-urls"


@dataclass
class Container:
    """Where one test's store keeps its objects, in tempauth's account `test`.

    Entered, it has an HTTP client that knows nothing of the store; left, it must be empty, and so
    must those whose names begin with its own.
    """

    server: Swift
    name: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}")

    def values(self) -> dict[str, object]:
        """The options of a store here, with the smallest segments that there are."""
        return {
            "swift_store_auth_version": "1",
            "swift_store_auth_address": self.server.auth_url,
            "swift_store_user": "test:tester",
            "swift_store_key": "testing",
            "swift_store_container": self.name,
            "swift_store_create_container_on_put": True,
            "swift_store_large_object_chunk_size": 1,
        }

    def store(
        self, *, read_only: bool = False, on_call: OnCall = tell_nobody, **more: Any
    ) -> SwiftStore:
        options = SwiftOptions.model_validate({**self.values(), **more})
        return SwiftStore("here", options, read_only=read_only, on_call=on_call)

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(trust_env=False, timeout=60)
        answer = await self._http.get(
            self.server.auth_url, headers={"X-Auth-User": "test:tester", "X-Auth-Key": "testing"}
        )
        self._url = answer.headers["X-Storage-Url"]
        self._http.headers["X-Auth-Token"] = answer.headers["X-Auth-Token"]
        return self

    async def make(self, **headers: str) -> None:
        """Make the container, with a key for temporary URLs."""
        headers = {"X-Container-Meta-Temp-URL-Key": TEMP_URL_KEY, **headers}
        (await self.call("PUT", "", headers=headers)).raise_for_status()

    async def call(self, method: str, name: str = "", **more: Any) -> httpx.Response:
        """A request about an object of the container, or about the container itself."""
        path = f"/{self.name}/{name}" if name else f"/{self.name}"
        return await self._http.request(method, self._url + path, **more)

    async def everything(self) -> list[str]:
        """All objects of all containers of the test."""
        found: list[str] = []
        for name in await self._names("", self.name):
            found += await self._names(f"/{name}", "")
        return found

    async def containers(self) -> list[str]:
        return await self._names("", self.name)

    async def _names(self, path: str, prefix: str) -> list[str]:
        answer = await self._http.get(
            self._url + path, params={"format": "json", "prefix": prefix, "limit": "10000"}
        )
        if answer.status_code == 404:
            return []
        return [entry["name"] for entry in answer.json()]

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                assert await self.everything() == []
            for name in await self._names("", self.name):
                for one in await self._names(f"/{name}", ""):
                    await self._http.delete(
                        f"{self._url}/{name}/{httpx.URL(path='/' + one).raw_path.decode()[1:]}"
                    )
                await self._http.delete(f"{self._url}/{name}")
        finally:
            await self._http.aclose()


@dataclass
class Cloud:
    """The service's user, who may act in every account, of a real Keystone."""

    keystone: Keystone
    swift: Swift
    user: str
    user_id: str

    def options(self, **more: object) -> SwiftOptions:
        return SwiftOptions.model_validate(
            {
                "swift_store_auth_address": self.keystone.url,
                "swift_store_user": f"service:{self.user}",
                "swift_store_key": PASSWORD,
                "swift_store_container": f"test-{uuid.uuid4().hex[:12]}",
                "swift_store_create_container_on_put": True,
                "swift_store_large_object_chunk_size": 1,
                **more,
            }
        )

    def store(self, **more: object) -> MultiTenantSwiftStore:
        return MultiTenantSwiftStore("here", self.options(swift_store_multi_tenant=True, **more))


def make_cloud(keystone: Keystone, swift: Swift) -> Cloud:
    """Add such a user to a Keystone."""
    name = f"store-{uuid.uuid4().hex[:8]}"
    user = {"name": name, "password": PASSWORD, "domain_id": "default"}
    user_id = keystone.call("POST", "/users", {"user": user})["user"]["id"]
    roles = {one["name"]: one["id"] for one in keystone.call("GET", "/roles")["roles"]}
    service = keystone.project_id("service")
    for role in ("member", RESELLER_ROLE):
        keystone.call("PUT", f"/projects/{service}/users/{user_id}/roles/{roles[role]}")
    return Cloud(keystone, swift, name, user_id)
