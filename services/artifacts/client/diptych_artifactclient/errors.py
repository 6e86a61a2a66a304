"""What goes wrong, in words for the one who asked.

What the service refuses is raised by keystoneauth1 (`HttpError`), with the service's own message.

```
CommandError (osc-lib: its text is all that the user sees)
└── ArtifactError
    ├── BadArgument
    ├── NoSuchArtifact
    ├── SeveralArtifacts
    ├── NotTheService
    └── TransferFailed
        └── WrongChecksum
```
"""

from osc_lib.exceptions import CommandError


class ArtifactError(CommandError):
    """Any of these."""


class BadArgument(ArtifactError):
    """What was given cannot be sent."""


class NoSuchArtifact(ArtifactError):
    """No artifact of the type has that name and version."""


class SeveralArtifacts(ArtifactError):
    """More than one has; the message lists their ids."""


class NotTheService(ArtifactError):
    """The endpoint answered what no artifacts service would."""


class TransferFailed(ArtifactError):
    """Bytes did not arrive, all of them."""


class WrongChecksum(TransferFailed):
    """Other bytes arrived than were sent."""
