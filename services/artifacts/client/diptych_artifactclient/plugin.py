"""What osc-lib asks of a plug-in."""

import argparse
from typing import Final

from keystoneauth1.adapter import Adapter
from osc_lib import utils
from osc_lib.clientmanager import ClientManager

from diptych_artifactclient.client import Artifacts

DEFAULT_API_VERSION: Final = "1"
API_VERSION_OPTION: Final = "os_artifact_api_version"
API_NAME: Final = "artifact"
API_VERSIONS: Final = {"1": "diptych_artifactclient.client.Artifacts"}

# Where a cloud's entry in clouds.yaml may have the address. The first is what the option below and
# the variable become, the second what openstacksdk takes of any service, the third Glare's.
_OVERRIDES = ("artifact_endpoint", "artifact_endpoint_override", "glare_url")


def make_client(instance: ClientManager) -> Artifacts:
    """The service of the user's cloud: by its catalog unless an address is given."""
    configured = instance.get_configuration()
    return Artifacts(
        Adapter(
            instance.session,
            service_type="artifact",
            interface=instance.interface,
            region_name=instance.region_name,
            endpoint_override=next(
                (configured[key] for key in _OVERRIDES if configured.get(key)), None
            ),
        )
    )


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the global options."""
    parser.add_argument(
        "--os-artifact-api-version",
        metavar="<artifact-api-version>",
        default=utils.env("OS_ARTIFACT_API_VERSION"),
        help=f"Artifact API version, default={DEFAULT_API_VERSION} (Env: OS_ARTIFACT_API_VERSION)",
    )
    parser.add_argument(
        "--os-artifact-endpoint",
        metavar="<url>",
        default=utils.env("OS_ARTIFACT_ENDPOINT"),
        help="Address of the artifacts service, if not the catalog's (Env: OS_ARTIFACT_ENDPOINT)",
    )
    return parser
