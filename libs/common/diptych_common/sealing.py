"""Secrets that wait in the database, sealed with keys that are only in the settings."""

from collections.abc import Mapping, Sequence

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from diptych_common.jobs import GiveUp
from diptych_common.settings import Jobs


class Sealed:
    """Seals with the first of its keys, opens with any; raises ValueError for a malformed one.

    Keys are made by `new_key`. To exchange one, put the new one in front, and take the old one away
    when all that it sealed is used up.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = MultiFernet([Fernet(key) for key in keys])

    def seal(self, value: Mapping[str, str]) -> bytes:
        """The value, unreadable and unchangeable without the key."""
        return self._keys.encrypt(orjson.dumps(value))

    def open(self, sealed: bytes) -> dict[str, str]:
        """What was sealed; raises GiveUp if it was not with one of the keys."""
        try:
            return orjson.loads(self._keys.decrypt(sealed))
        except InvalidToken:
            raise GiveUp(
                "The credentials of this job cannot be read: none of the service's keys fits."
            ) from None


def configured(settings: Jobs) -> Sealed | None:
    """What seals and opens with the keys in the settings; None if there is no key."""
    keys = [key.get_secret_value() for key in settings.secret_keys]
    return Sealed(keys) if keys else None


def new_key() -> str:
    """A key for the settings."""
    return Fernet.generate_key().decode()
