"""The command line of the images service."""

import asyncio
from collections.abc import Sequence

from diptych_common.command_line import (
    ConfigDirs,
    ConfigFiles,
    Service,
    StoreReports,
    commands,
)
from diptych_common.outbound import Outbound
from diptych_common.settings import Loaded
from diptych_store import report
from diptych_store.report import Report

from diptych_images import app as application
from diptych_images import policies, settings
from diptych_images.settings import ImagesSettings


def _describe_stores(loaded: Loaded[ImagesSettings]) -> Report:
    return report.describe(settings.stores(loaded))


async def _check_stores(
    loaded: Loaded[ImagesSettings], names: Sequence[str], seconds: float
) -> Report:
    outbound = Outbound(loaded.settings.outbound)
    return await report.check(settings.stores(loaded), names, seconds=seconds, outbound=outbound)


SERVICE = Service(
    name="diptych-images",
    model=settings.ImagesSettings,
    load=settings.load,
    create_app=application.create_app,
    rules=policies.RULES,
    migrations="diptych_images.migrations",
    refusals=(ValueError,),  # the store library's among them
    with_leftovers=settings.with_leftovers,
    stores=StoreReports(describe=_describe_stores, check=_check_stores),
)

main = commands(SERVICE)


@main.command()
def worker(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Run background jobs only, until SIGTERM or Ctrl-C."""
    loaded = SERVICE.settings(config_file, config_dir)
    with SERVICE.explained():
        SERVICE.configure_logs(loaded)
        asyncio.run(application.run_worker(loaded))
