"""The command line of the images service."""

import asyncio

from diptych_common.command_line import ConfigDirs, ConfigFiles, Service, commands

from diptych_images import app as application
from diptych_images import policies, settings

SERVICE = Service(
    name="diptych-images",
    model=settings.ImagesSettings,
    load=settings.load,
    create_app=application.create_app,
    rules=policies.RULES,
    migrations="diptych_images.migrations",
    refusals=(ValueError,),  # the store library's among them
    with_leftovers=settings.with_leftovers,
)

main = commands(SERVICE)


@main.command()
def worker(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Run background jobs only, until SIGTERM or Ctrl-C."""
    loaded = SERVICE.settings(config_file, config_dir)
    with SERVICE.explained():
        SERVICE.configure_logs(loaded)
        asyncio.run(application.run_worker(loaded))
