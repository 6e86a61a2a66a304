"""Secrets of jobs: who can open them, and what operators are told about their keys."""

import pytest
from diptych_common import sealing, settings_report
from diptych_common.jobs import GiveUp
from diptych_common.sealing import Sealed, new_key
from diptych_common.settings import Loaded, ServiceDefault, ServiceSettings, SettingsError, load
from diptych_common.settings import option as an_option


class Default(ServiceDefault, frozen=True):
    bind_port: int = an_option(1, "A port.")


class Settings(ServiceSettings, frozen=True):
    default: Default = Default()


VALUE = {"token": "sésame", "expires_at": "2026-01-31T12:00:00Z"}


def loaded(keys: str) -> Loaded[Settings]:
    environ = {"SAMPLE__JOBS__SECRET_KEYS": keys}
    return load(Settings, config_files=(), environ=environ, env_prefix="SAMPLE")


def test_what_was_sealed_is_opened_with_the_same_key():
    key = new_key()
    sealed = Sealed([key]).seal(VALUE)
    assert Sealed([key]).open(sealed) == VALUE
    assert b"token" not in sealed
    assert Sealed([key]).seal(VALUE) != sealed


def test_a_key_can_be_exchanged_while_secrets_wait():
    old, new = new_key(), new_key()
    before = Sealed([old]).seal(VALUE)
    after = Sealed([new, old]).seal(VALUE)
    assert Sealed([new, old]).open(before) == VALUE
    assert Sealed([new]).open(after) == VALUE
    with pytest.raises(GiveUp, match="none of the service's keys fits"):
        Sealed([old]).open(after)


def test_what_was_tampered_with_is_not_opened():
    keys = Sealed([new_key()])
    sealed = keys.seal(VALUE)
    changed = bytes([*sealed[:40], sealed[40] ^ 1, *sealed[41:]])
    for wrong in (changed, sealed[:-4], b"", b"\xff"):
        with pytest.raises(GiveUp):
            keys.open(wrong)


def test_keys_of_the_settings_seal_with_the_first_and_open_with_all():
    old, new = new_key(), new_key()
    both = sealing.configured(loaded(f"{new}, {old}").settings.jobs)
    assert both is not None
    assert both.open(Sealed([old]).seal(VALUE)) == VALUE
    assert Sealed([new]).open(both.seal(VALUE)) == VALUE
    assert sealing.configured(loaded("").settings.jobs) is None


@pytest.mark.parametrize(
    "keys", ["secret", "x" * 44, "", "é"], ids=["short", "no-base64", "nothing", "no-ascii"]
)
def test_a_key_that_is_none_is_refused_without_being_shown(keys: str):
    with pytest.raises(SettingsError) as refused:
        loaded(f"{new_key()},{keys},{new_key()}")
    assert str(refused.value) == (
        "environment SAMPLE__JOBS__SECRET_KEYS: [jobs] secret_keys: expected keys as `jobs key`"
        " prints them, separated by commas"
    )


def test_keys_are_never_shown():
    key = new_key()
    found = loaded(key)
    assert key not in settings_report.show(found)
    assert settings_report.effective(found)["jobs"]["secret_keys"] == "***"
    assert key not in repr(found.settings)
    assert "secret_keys =\n" in settings_report.show(loaded(""))
