"""Unified limits: how much of a resource projects may have, as Keystone has it.

With the model `flat` each project has its own limit. With `strict_two_level` the projects of a
domain have the domain's limit besides, for all of them together. A project without a limit of its
own has the registered one, and so has a domain; a resource without a registered limit is refused
to everybody, as by oslo.limit 2.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from pydantic import BaseModel, Field, ValidationError

from diptych_common.errors import ServiceUnavailable
from diptych_common.keystone import RETRY_AFTER, CannotAsk, Keystone
from diptych_common.settings import OsloLimit

log = logging.getLogger(__name__)

FRESH_S: Final = 10.0
"""How long limits are used without asking again."""

LAST_KNOWN_S: Final = 300.0
"""How long they are used while Keystone does not answer."""

_KNOWN_PROJECTS: Final = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one project by resource; below 0: none.

    Under `strict_two_level` also the domain, its limits, and the projects that share them.
    """

    own: Mapping[str, int]
    domain_id: str | None = None
    shared: Mapping[str, int] | None = None
    sharing: tuple[str, ...] = ()


class _Model(BaseModel):
    name: str


class _ModelAnswer(BaseModel):
    model: _Model


class _Identified(BaseModel):
    id: str


class _Place(_Identified):
    """An endpoint, as far as limits are concerned."""

    service_id: str
    region_id: str | None = None


class _PlaceAnswer(BaseModel):
    endpoint: _Place


class _PlacesAnswer(BaseModel):
    endpoints: list[_Place]


class _ServicesAnswer(BaseModel):
    services: list[_Identified]


class _Registered(BaseModel):
    resource_name: str
    default_limit: int
    region_id: str | None = None


class _RegisteredAnswer(BaseModel):
    registered_limits: list[_Registered]


class _Set(BaseModel):
    resource_name: str
    resource_limit: int
    region_id: str | None = None


class _SetAnswer(BaseModel):
    limits: list[_Set]


class _Project(BaseModel):
    id: str
    domain_id: str


class _ProjectAnswer(BaseModel):
    project: _Project


class _ProjectsAnswer(BaseModel):
    projects: list[_Project] = Field(default_factory=list[_Project])


L = TypeVar("L", _Registered, _Set)


class UnifiedLimits:
    """The limits of this service's resources, asked of Keystone and remembered for `FRESH_S`.

    `resources` are their names. Keystone is asked when the first project comes, so that a daemon
    starts without it; requests about the same project share the questions.
    """

    def __init__(self, keystone: Keystone, options: OsloLimit, resources: Sequence[str]) -> None:
        self._keystone = keystone
        self._options = options
        self._resources = tuple(resources)
        self._place: _Place | None = None
        self._known: dict[str, tuple[float, Limits]] = {}
        self._asking: dict[str, asyncio.Task[Limits | None]] = {}

    async def of(self, project_id: str) -> Limits:
        """The limits of a project, at most `FRESH_S` old, or `LAST_KNOWN_S` while Keystone is away.

        Raises ServiceUnavailable where nothing is known that is as new as that.
        """
        known = self._known.get(project_id)
        if known is not None and time.monotonic() - known[0] < FRESH_S:
            return known[1]
        asking = self._asking.get(project_id)
        if asking is None:
            asking = asyncio.create_task(self._ask(project_id))
            self._asking[project_id] = asking
            asking.add_done_callback(partial(self._asked, project_id))
        # Shielded: the client that asked first may go away while others wait for the answer.
        found = await asyncio.shield(asking)
        if found is not None:
            return found
        if known is not None and time.monotonic() - known[0] < LAST_KNOWN_S:
            return known[1]
        raise ServiceUnavailable(
            "The identity service does not tell the limits of the project.", headers=RETRY_AFTER
        )

    def _asked(self, project_id: str, _: object) -> None:
        del self._asking[project_id]

    async def _ask(self, project_id: str) -> Limits | None:
        try:
            limits = await self._limits(project_id)
        except CannotAsk as error:
            log.error("Keystone does not tell limits: %s", error)
            return None
        except ValidationError as error:
            log.error("Keystone's limits cannot be read: %s faults", error.error_count())
            return None
        self._known.pop(project_id, None)
        self._known[project_id] = (time.monotonic(), limits)
        if len(self._known) > _KNOWN_PROJECTS:
            del self._known[next(iter(self._known))]
        return limits

    async def _limits(self, project_id: str) -> Limits:
        place = self._place
        if place is None:
            self._place = place = await self._found_place()
        get = self._keystone.get
        model = _ModelAnswer.model_validate_json(await get("limits/model")).model.name
        answer = await get("registered_limits", {"service_id": place.service_id})
        registered = {
            one.resource_name: one.default_limit
            for one in _of_region(
                _RegisteredAnswer.model_validate_json(answer).registered_limits, place
            )
        }
        own = await self._set(place, registered, project_id=project_id)
        if model == "flat":
            return Limits(own)
        if model != "strict_two_level":
            raise CannotAsk(f"its enforcement model {model} is not known here")
        project = _ProjectAnswer.model_validate_json(await get(f"projects/{project_id}")).project
        domain = {"domain_id": project.domain_id}
        sharing = _ProjectsAnswer.model_validate_json(await get("projects", domain)).projects
        return Limits(
            own,
            domain_id=project.domain_id,
            shared=await self._set(place, registered, **domain),
            sharing=tuple(sorted({project_id, *(one.id for one in sharing)})),
        )

    async def _set(
        self, place: _Place, registered: Mapping[str, int], **whose: str
    ) -> dict[str, int]:
        answer = await self._keystone.get("limits", {"service_id": place.service_id, **whose})
        found = _of_region(_SetAnswer.model_validate_json(answer).limits, place)
        limits = {**registered, **{one.resource_name: one.resource_limit for one in found}}
        return {name: limits.get(name, 0) for name in self._resources}

    async def _found_place(self) -> _Place:
        """The service, and the region, for which operators set the limits."""
        options, get = self._options, self._keystone.get
        if options.endpoint_id is not None:
            answer = await get(f"endpoints/{options.endpoint_id}")
            return _PlaceAnswer.model_validate_json(answer).endpoint
        named = {"type": options.endpoint_service_type}
        if options.endpoint_service_name is not None:
            named["name"] = options.endpoint_service_name
        services = _ServicesAnswer.model_validate_json(await get("services", named)).services
        if len(services) != 1:
            raise CannotAsk(f"it has {len(services)} services {named}, not one")
        where = {
            "service_id": services[0].id,
            "interface": options.endpoint_interface.removesuffix("URL"),
        }
        if options.endpoint_region_name is not None:
            where["region_id"] = options.endpoint_region_name
        endpoints = _PlacesAnswer.model_validate_json(await get("endpoints", where)).endpoints
        if len(endpoints) != 1:
            raise CannotAsk(f"it has {len(endpoints)} endpoints {where}, not one")
        return endpoints[0]


def _of_region(found: Sequence[L], place: _Place) -> list[L]:
    """Those for all regions, then those for this one, which count more."""
    return [one for one in found if one.region_id is None] + [
        one for one in found if one.region_id is not None and one.region_id == place.region_id
    ]
