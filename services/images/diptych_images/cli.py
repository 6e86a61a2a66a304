"""The command line of the images service."""

import asyncio

from diptych_common.command_line import ConfigDirs, ConfigFiles, Service, commands
from diptych_common.settings import Loaded

from diptych_images import app as application
from diptych_images import policies, settings
from diptych_images.settings import ImagesSettings


def _check_stores(loaded: Loaded[ImagesSettings]) -> list[str]:
    unknown = settings.stores(loaded).unknown
    return [
        f"[{one.section}] {one.option} "
        + ("is unknown and ignored" if one.reason is None else f"has no effect: {one.reason}")
        for one in unknown
    ]


SERVICE = Service(
    name="diptych-images",
    model=settings.ImagesSettings,
    load=settings.load,
    create_app=application.create_app,
    rules=policies.RULES,
    migrations="diptych_images.migrations",
    refusals=(ValueError,),  # the store library's among them
    check_elsewhere=_check_stores,
)

main = commands(SERVICE)


@main.command()
def worker(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Run background jobs only, until SIGTERM or Ctrl-C."""
    loaded = SERVICE.settings(config_file, config_dir)
    with SERVICE.explained():
        SERVICE.configure_logs(loaded)
        asyncio.run(application.run_worker(loaded))
