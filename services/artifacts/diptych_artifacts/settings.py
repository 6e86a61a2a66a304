"""The artifacts service's settings: its own groups and those it shares."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from diptych_common import settings as common
from diptych_common.settings import GROUP, Loaded, Port, option
from pydantic import BaseModel

ENV_PREFIX: Final = "DIPTYCH_ARTIFACTS"
DEFAULT_FILE: Final = Path("/etc/diptych/artifacts.conf")
DEFAULT_DIRECTORY: Final = Path("/etc/diptych/artifacts.conf.d")


class Default(BaseModel):
    """[DEFAULT]: the API itself."""

    model_config = GROUP

    bind_host: str = option("0.0.0.0", "Address to listen on.")
    bind_port: Port = option(9494, "Port to listen on.")
    workers: int = option(2, "Processes that serve requests.", ge=1)
    graceful_timeout: float = option(
        600.0, "Seconds that running transfers get to finish when the service is stopped.", ge=0
    )
    public_endpoint: str | None = option(
        None,
        "The service's public address for version documents. Unset: what the client asked for.",
    )
    allow_anonymous_access: bool = option(
        False, "Serve reads without a token, as far as the policy allows."
    )
    max_request_id_length: int = option(
        64, "Longest request id taken from a client, in characters.", ge=1
    )
    debug: bool = option(False, "Log more.")
    log_file: str | None = option(None, "Log to this file. Unset: to standard error.")
    log_dir: str | None = option(None, "Folder of log_file, where that is a relative name.")
    use_json: bool = option(False, "Log one JSON object a line.")


class Metrics(common.Metrics):
    """[metrics]: Prometheus metrics, on a listener of their own."""

    # Not the images service's, so that both run on one host as they are.
    bind_port: Port = option(9495, "Port of the listener; 0 lets the system choose one.")


class ArtifactsSettings(BaseModel):
    """All that the artifacts service can be told."""

    model_config = GROUP

    default: Default = Default()
    database: common.Database = common.Database()
    keystone_authtoken: common.KeystoneAuthtoken = common.KeystoneAuthtoken()
    oslo_policy: common.OsloPolicy = common.OsloPolicy()
    paste_deploy: common.PasteDeploy = common.PasteDeploy()
    oslo_middleware: common.OsloMiddleware = common.OsloMiddleware()
    cors: common.Cors = common.Cors()
    healthcheck: common.Healthcheck = common.Healthcheck()
    metrics: Metrics = Metrics()
    jobs: common.Jobs = common.Jobs()


def load(
    *,
    config_files: Sequence[Path] = (),
    config_dirs: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> Loaded[ArtifactsSettings]:
    """Read the settings; without files and folders those in /etc/diptych, if they are there.

    Raises SettingsError.
    """
    files = config_files or [file for file in (DEFAULT_FILE,) if file.exists()]
    directories = config_dirs or [folder for folder in (DEFAULT_DIRECTORY,) if folder.is_dir()]
    return common.load(
        ArtifactsSettings,
        config_files=files,
        config_dirs=directories,
        environ=environ,
        env_prefix=ENV_PREFIX,
    )
