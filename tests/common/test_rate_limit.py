import pytest
from diptych_common.errors import TooManyRequests
from diptych_common.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused_for(limit: RateLimit, key: str = "alpha") -> int:
    with pytest.raises(TooManyRequests) as refusal:
        limit.take(key)
    return int(refusal.value.headers["Retry-After"])


def test_a_burst_passes_and_then_the_pace_counts() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=7, burst=3, now=clock)
    for _ in range(3):
        limit.take("alpha")
    assert refused_for(limit) == 9  # 60 / 7 s, rounded up
    limit.take("beta")

    clock.now += 8.5
    assert refused_for(limit) == 1
    clock.now += 0.1
    limit.take("alpha")
    assert refused_for(limit) == 9


def test_whoever_comes_when_told_passes() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=90, burst=1, now=clock)
    for _ in range(50):
        limit.take("alpha")
        clock.now += refused_for(limit)


def test_a_bucket_is_never_fuller_than_full() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=60, burst=2, now=clock)
    limit.take("alpha")
    clock.now += 3600
    limit.take("alpha")
    limit.take("alpha")
    assert refused_for(limit) == 1


def test_without_a_limit_all_pass() -> None:
    limit = RateLimit(per_minute=0, burst=1)
    for _ in range(1000):
        limit.take("alpha")


def test_those_who_have_gone_are_forgotten_and_those_who_have_not_are_not() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=60, burst=1, now=clock)
    for number in range(9_999):
        limit.take(str(number))
    clock.now += 10
    limit.take("alpha")
    limit.take("beta")
    assert refused_for(limit, "alpha") == 1
