"""The command line of the artifacts service."""

from collections.abc import Sequence

from diptych_common.command_line import Service, StoreReports, commands
from diptych_common.outbound import Outbound
from diptych_common.settings import Loaded
from diptych_store import report
from diptych_store.report import Report

from diptych_artifacts import app as application
from diptych_artifacts import settings
from diptych_artifacts.settings import ArtifactsSettings


def _describe_stores(loaded: Loaded[ArtifactsSettings]) -> Report:
    return report.describe(settings.stores(loaded))


async def _check_stores(
    loaded: Loaded[ArtifactsSettings], names: Sequence[str], seconds: float
) -> Report:
    outbound = Outbound(loaded.settings.outbound)
    return await report.check(settings.stores(loaded), names, seconds=seconds, outbound=outbound)


SERVICE = Service(
    name="diptych-artifacts",
    model=settings.ArtifactsSettings,
    load=settings.load,
    create_app=application.create_app,
    rules=(),
    migrations=None,
    refusals=(ValueError,),  # the store library's among them
    with_leftovers=settings.with_leftovers,
    stores=StoreReports(describe=_describe_stores, check=_check_stores),
)

main = commands(SERVICE)
