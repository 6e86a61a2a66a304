"""The artifacts service's settings: those that it shares, and its own defaults."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from diptych_common import settings as common
from diptych_common.settings import Elsewhere, Loaded, Port, option
from diptych_store.settings import (
    REPEATED,
    SECRETS,
    StoresConfig,
    StoreSettingsError,
    store_sections,
)


class Default(common.ServiceDefault, frozen=True):
    """[DEFAULT]: the API itself."""

    bind_port: Port = option(9494, "Port to listen on.")
    enabled_backends: str | None = option(
        None,
        "Stores as name:type, separated by commas; each has a section of its name. Unset: one of"
        " each type, by [glance_store].",
    )


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
        read_elsewhere=Elsewhere(store_sections, repeated=REPEATED, secret=SECRETS),
    )


def stores(loaded: Loaded[ArtifactsSettings]) -> StoresConfig:
    """What the settings say of the stores. Raises SettingsError."""
    try:
        # Not Glance's directory: the images service on the same host takes what is there and not
        # its own for left-overs.
        return StoresConfig.from_sections(loaded.sections, directory="/var/lib/diptych/artifacts")
    except StoreSettingsError as error:
        raise loaded.refusal(
            (one.section, one.option, one.expected) for one in error.problems
        ) from error


def with_leftovers(loaded: Loaded[ArtifactsSettings]) -> Loaded[ArtifactsSettings]:
    """The settings with the options of stores that have no effect. Raises SettingsError."""
    return loaded.with_leftovers(
        (one.section, one.option, one.reason) for one in stores(loaded).unused
    )
