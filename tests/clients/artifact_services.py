"""Where the clients of artifacts go: the daemon as it is deployed, or the real Glare."""

from dataclasses import dataclass
from pathlib import Path

from tests.images.stores import Bucket


@dataclass(frozen=True)
class ArtifactService:
    """A running service with identities from Keystone, and the region of the catalog it is in."""

    name: str
    url: str
    region: str


@dataclass(frozen=True)
class ArtifactDaemon:
    """Our daemon, and where it keeps its blobs: in `files` and in a bucket."""

    url: str
    files: Path
    bucket: Bucket
