"""The artifacts service's settings: those that it shares, and its own defaults."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from diptych_common import settings as common
from diptych_common.settings import Loaded, Port, option


class Default(common.ServiceDefault, frozen=True):
    """[DEFAULT]: the API itself."""

    bind_port: Port = option(9494, "Port to listen on.")


class Metrics(common.Metrics):
    """[metrics]: Prometheus metrics, on a listener of their own."""

    # Not the images service's, so that both run on one host as they are.
    bind_port: Port = option(9495, "Port of the listener; 0 lets the system choose one.")


class ArtifactsSettings(common.ServiceSettings, frozen=True):
    """All that the artifacts service can be told."""

    default: Default = Default()
    metrics: Metrics = Metrics()


def load(
    *,
    config_files: Sequence[Path] = (),
    config_dirs: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> Loaded[ArtifactsSettings]:
    """Read the settings: see `diptych_common.settings.load_service`. Raises SettingsError."""
    return common.load_service(
        ArtifactsSettings,
        "artifacts",
        config_files=config_files,
        config_dirs=config_dirs,
        environ=environ,
    )
