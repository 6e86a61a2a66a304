"""The command line of the artifacts service."""

from diptych_common.command_line import Service, commands

from diptych_artifacts import app as application
from diptych_artifacts import settings

SERVICE = Service(
    name="diptych-artifacts",
    model=settings.ArtifactsSettings,
    load=settings.load,
    create_app=application.create_app,
    rules=(),
    migrations=None,
    refusals=(ValueError,),
)

main = commands(SERVICE)
