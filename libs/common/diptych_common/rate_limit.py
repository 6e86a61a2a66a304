"""How often somebody may do something: a bucket of tokens for each, in this process."""

import math
import time
from collections.abc import Callable

from diptych_common.errors import TooManyRequests

# Of those who were here lately; each is some 200 bytes.
_MANY = 10_000


class RateLimit:
    """`burst` at once, and `per_minute` in the long run, for each key; 0 per minute: no limit.

    What counts is this process alone. Nothing is kept of a key whose bucket is full again.
    """

    def __init__(
        self, *, per_minute: float, burst: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = 60 / per_minute if per_minute > 0 else 0.0
        # How far ahead of its pace a key may be.
        self._ahead_s = self._interval_s * burst
        self._now = now
        # By key, when its bucket will be full: one number says all that a count and a time would.
        self._full_at: dict[str, float] = {}

    def take(self, key: str) -> None:
        """Count one for `key`. TooManyRequests, which does not count, tells when to come back."""
        if self._interval_s == 0:
            return
        now = self._now()
        full_at = max(self._full_at.get(key, now), now) + self._interval_s
        # A rounding error must not take one of a burst away.
        early_s = full_at - now - self._ahead_s
        if early_s > self._interval_s * 1e-6:
            raise TooManyRequests(
                "The project does this too often.",
                headers={"Retry-After": str(math.ceil(early_s))},
            )
        if len(self._full_at) >= _MANY:
            self._full_at = {each: at for each, at in self._full_at.items() if at > now}
        self._full_at[key] = full_at
