"""The tables of exchanges and differences fit together; this needs neither service."""

from collections import Counter

from tests.compat.differences import DIFFERENCES, EVERYWHERE
from tests.compat.exchanges import EXCHANGES
from tests.compat.form import PERSONAS
from tests.compat.opened import OPENED
from tests.compat.states import STATES

ALL = (*EXCHANGES, *OPENED)


def test_names_are_used_once() -> None:
    counted = Counter(exchange.name for exchange in ALL)
    assert [name for name, times in counted.items() if times > 1] == []


def test_personas_and_states_are_known() -> None:
    assert {exchange.by for exchange in ALL} <= set(PERSONAS)
    assert {exchange.given for exchange in ALL} == set(STATES)


def test_differences_are_of_exchanges() -> None:
    names = {exchange.name for exchange in ALL}
    listed = [name for one in DIFFERENCES for name in one.exchanges]
    assert set(listed) <= names
    assert all(one.exchanges for one in DIFFERENCES)
    assert not any(one.exchanges for one in EVERYWHERE)


def test_every_difference_has_a_reason() -> None:
    assert all(one.reason for one in (*DIFFERENCES, *EVERYWHERE))
