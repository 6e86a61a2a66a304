"""Settings are read as oslo.config reads them, and what is wrong is told in full."""

import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
from diptych_common import settings as common
from diptych_common import settings_report
from diptych_common.settings import (
    GROUP,
    Bytes,
    CommaList,
    Loaded,
    Port,
    Problem,
    SettingsError,
    UnknownOption,
    UnusedOption,
    option,
)
from hypothesis import given
from hypothesis import strategies as st
from oslo_config import cfg
from pydantic import BaseModel, Field, SecretStr


class Default(BaseModel):
    """[DEFAULT]: the service itself."""

    model_config = GROUP

    name: str | None = option(None, "A name.")
    port: Port = option(80, "A port.")
    names: CommaList = option((), "Some names.")
    cap: Bytes = option(1024, "A size.")
    backends: str | None = option(None, "Names of other sections.")
    debug: bool = option(False, "More.")


class Server(BaseModel):
    """[server]: another machine."""

    model_config = GROUP

    url: str = option("", "Where it is.", secret=True, former=("DEFAULT.server_url", "address"))
    password: SecretStr | None = option(None, "Its password.", secret=True)
    mode: Literal["fast", "slow"] = option("fast", "How.")
    wait: Annotated[float, Field(gt=0, le=60)] = option(1.5, "Seconds.")


class Settings(BaseModel):
    """Two groups."""

    model_config = GROUP

    default: Default = Default()
    server: Server = Server()


UNUSED = {"DEFAULT": {"old": "it is gone"}, "junk": {"*": "all of it is gone"}}


def backends(sections: object) -> list[str]:
    match sections:
        case {"DEFAULT": {"backends": str(names)}}:
            return names.split(",")
        case _:
            return []


def write(tmp_path: Path, text: str, name: str = "test.conf") -> Path:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def load(*files: Path, dirs: tuple[Path, ...] = (), **environ: str) -> Loaded[Settings]:
    return common.load(
        Settings,
        config_files=files,
        config_dirs=dirs,
        environ=environ,
        env_prefix="TEST",
        unused=UNUSED,
        read_elsewhere=common.Elsewhere(
            backends, repeated=frozenset({"shelves"}), secret=frozenset({"quiet"})
        ),
    )


def test_without_files_defaults_hold() -> None:
    loaded = load()
    assert loaded.settings == Settings()
    assert (loaded.unknown, loaded.unused, loaded.remarks) == ((), (), ())


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("name = plain", "plain"),
        ("name=plain", "plain"),
        ("name: plain", "plain"),
        ("name : a=b", "a=b"),
        ("name = a:b", "a:b"),
        ("name =   spaces around   ", "spaces around"),
        ("name = ' kept '", " kept "),
        ('name = "quoted"', "quoted"),
        ("name = \"half'", "\"half'"),
        ("name = 50% of %(this)s", "50% of %(this)s"),
        ("name = not # a comment ; at all", "not # a comment ; at all"),
        ("name = first\n  second\n\tthird", "first\nsecond\nthird"),
        ("name = first\n  # no comment", "first\n# no comment"),
        ("name = one\nname = two", "two"),
        ("# name = no\n; name = no\nname = yes", "yes"),
        ("name =\n[other]\n[DEFAULT]\nname = later", "later"),
        ("name = über", "über"),
        ("[server]\n[DEFAULT]\nname = back", "back"),
    ],
)
def test_a_value_reads_as_in_oslo_config(line: str, value: str, tmp_path: Path) -> None:
    file = write(tmp_path, f"[DEFAULT]\n{line}\n")
    assert load(file).settings.default.name == value
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.StrOpt("name"))
    conf([], default_config_files=[str(file)], default_config_dirs=[])
    assert conf.name == value


@given(st.text(alphabet="ab =:#;'\"\\%,[]()\t\n", max_size=30))
def test_any_text_reads_as_in_oslo_config(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    # No `$`, which oslo.config substitutes and this does not.
    folder = tmp_path_factory.getbasetemp() / "any"
    file = write(folder, f"[DEFAULT]\nname = {text}\nlast = 1\n")
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.StrOpt("name"))
    try:
        conf([], default_config_files=[str(file)], default_config_dirs=[])
        theirs = conf.name
    except cfg.ConfigFileParseError:
        with pytest.raises(SettingsError, match=r"any/test\.conf:"):
            load(file)
    else:
        # An empty value is an unset option here.
        assert load(file).settings.default.name == (theirs or None)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("a", ("a",)),
        ("a,b", ("a", "b")),
        (" a , b , ", ("a", "b")),
        ("a,\n  b,\n  c", ("a", "b", "c")),
        ("a,,b", ("a", "", "b")),
    ],
)
def test_a_list_reads_as_in_oslo_config(text: str, names: tuple[str, ...], tmp_path: Path) -> None:
    file = write(tmp_path, f"[DEFAULT]\nnames = {text}\n")
    assert load(file).settings.default.names == names
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.ListOpt("names"))
    conf([], default_config_files=[str(file)], default_config_dirs=[])
    assert tuple(conf.names) == names


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("Yes", True), ("ON", True), ("true", True), ("0", False), ("off", False)],
)
def test_booleans_are_those_of_oslo_config(text: str, value: bool, tmp_path: Path) -> None:
    assert load(write(tmp_path, f"[DEFAULT]\ndebug = {text}\n")).settings.default.debug is value


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("12", 12), ("3KB", 3072), ("1 mb", 1 << 20), ("2T", 2 << 40)]
)
def test_sizes_have_units(text: str, size: int, tmp_path: Path) -> None:
    assert load(write(tmp_path, f"[DEFAULT]\ncap = {text}\n")).settings.default.cap == size


def test_later_files_then_folders_in_order_then_the_environment_win(tmp_path: Path) -> None:
    first = write(tmp_path, "[DEFAULT]\nname = first\nport = 1\n[server]\nmode = slow\n", "1.conf")
    second = write(tmp_path, "[DEFAULT]\nname = second\ncap = 1\n", "2.conf")
    write(tmp_path, "[DEFAULT]\nname = b\n", "d/b.conf")
    write(tmp_path, "[DEFAULT]\nname = a\ncap = 2\n", "d/a.conf")
    write(tmp_path, "[DEFAULT]\nname = not read\n", "d/c.ini")
    assert load(first, second).settings.default.name == "second"
    loaded = load(first, second, dirs=(tmp_path / "d",))
    assert loaded.settings.default == Default(name="b", port=1, cap=2)
    assert loaded.settings.server.mode == "slow"
    assert [file.name for file in loaded.files] == ["1.conf", "2.conf", "a.conf", "b.conf"]
    loaded = load(first, second, TEST__DEFAULT__NAME="environment", TEST__SERVER__MODE="fast")
    assert loaded.settings.default.name == "environment"
    assert loaded.settings.server.mode == "fast"


def test_default_is_not_inherited_by_sections(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "[DEFAULT]\nmode = slow\n"))
    assert loaded.settings.server.mode == "fast"
    assert [one.option for one in loaded.unknown] == ["mode"]


def test_the_case_of_a_section_does_not_count_but_that_of_default_does(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "[Server]\nmode = slow\n[default]\nname = lost\n"))
    assert loaded.settings.server.mode == "slow"
    assert loaded.settings.default.name is None
    assert [(one.section, one.option) for one in loaded.unknown] == [("default", "name")]


def test_all_bad_values_are_told_with_file_section_and_what_was_expected(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "[DEFAULT]\nport = 70000\ncap = much\ndebug = perhaps\n[server]\nmode = medium\n",
    )
    with pytest.raises(SettingsError) as error:
        load(file, TEST__SERVER__WAIT="0")
    problems = {problem.option: problem for problem in error.value.problems}
    assert problems["port"] == Problem(
        f"{file}:2", "DEFAULT", "port", "70000", "a whole number from 0 up to 65535"
    )
    assert problems["cap"].expected == "a number of bytes, or one with KB, MB, GB or TB from 0"
    assert problems["debug"].expected == "true or false"
    assert problems["mode"].expected == "one of fast, slow"
    assert problems["wait"] == Problem(
        "environment TEST__SERVER__WAIT", "server", "wait", "0", "a number above 0 up to 60"
    )
    assert str(error.value).splitlines() == [str(problem) for problem in error.value.problems]
    assert f"{file}:2: [DEFAULT] port = 70000: expected a whole number" in str(error.value)


def test_an_empty_number_is_a_bad_value(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\[DEFAULT\] port = : expected a whole number"):
        load(write(tmp_path, "[DEFAULT]\nport =\n"))


def test_unknown_options_are_listed_with_their_places(tmp_path: Path) -> None:
    file = write(tmp_path, "[DEFAULT]\nnmae = x\n[sevrer]\nmode = slow\nwait = 1\n")
    assert load(file, TEST__SERVER__MOOD="bad").unknown == (
        UnknownOption(f"{file}:2", "DEFAULT", "nmae"),
        UnknownOption(f"{file}:4", "sevrer", "mode"),
        UnknownOption(f"{file}:5", "sevrer", "wait"),
        UnknownOption("environment TEST__SERVER__MOOD", "server", "mood"),
    )


def test_options_without_effect_are_listed_with_the_reason(tmp_path: Path) -> None:
    file = write(tmp_path, "[DEFAULT]\nold = x\n[junk]\nany = 1\n")
    loaded = load(file)
    assert loaded.unknown == ()
    assert loaded.unused == (
        UnusedOption(f"{file}:2", "DEFAULT", "old", "it is gone"),
        UnusedOption(f"{file}:4", "junk", "any", "all of it is gone"),
    )


def test_former_names_are_read_and_told(tmp_path: Path) -> None:
    file = write(tmp_path, "[DEFAULT]\nserver_url = old\n")
    loaded = load(file)
    assert loaded.settings.server.url == "old"
    assert loaded.unknown == ()
    assert settings_report.check(loaded) == [
        f"{file}:2: [DEFAULT] server_url is renamed: it is [server] url"
    ]


def test_the_current_name_wins_over_a_former_one(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "[server]\nurl = new\naddress = old\n"))
    assert loaded.settings.server.url == "new"
    assert loaded.unknown == ()


def test_a_dollar_is_itself_and_told(tmp_path: Path) -> None:
    file = write(tmp_path, "[DEFAULT]\nname = $port and $$ and \\$\n[server]\nurl = 5$\n")
    loaded = load(file)
    assert loaded.settings.default.name == "$port and $$ and \\$"
    assert len(loaded.remarks) == 1
    assert loaded.remarks[0].startswith(f"{file}:2: [DEFAULT] name has a $")


def test_a_repetition_in_one_file_is_told_and_one_across_files_is_not(tmp_path: Path) -> None:
    file = write(tmp_path, "[DEFAULT]\nname = a\nname = b\nport = 1\n")
    other = write(tmp_path, "[DEFAULT]\nport = 2\n", "other.conf")
    (remark,) = load(file, other).remarks
    assert remark.startswith(f"{file}:3: [DEFAULT] name is given more than once")


def test_sections_of_other_parts_are_handed_on_unchecked(tmp_path: Path) -> None:
    file = write(tmp_path, "[DEFAULT]\nbackends = Fast,slow-one\n[fast]\nfolder = /a\n")
    loaded = load(file, TEST__SLOW_ONE__FOLDER="/b", TEST__FAST__WEIGHT="3")
    assert loaded.unknown == ()
    assert loaded.elsewhere == ("Fast", "slow-one")
    # Spelled as `backends` spells them, whatever a section or a variable can say.
    assert loaded.sections["Fast"] == {"folder": "/a", "weight": "3"}
    assert loaded.sections["slow-one"] == {"folder": "/b"}


def test_every_value_of_a_repeated_option_counts(tmp_path: Path) -> None:
    text = "[DEFAULT]\nbackends = fast\n[fast]\nshelves = /a:1\nshelves = /b\nfolder = x\n"
    file = write(tmp_path, text + "[other]\nshelves = 1\nshelves = 2\n")
    other = write(tmp_path, "[fast]\nfolder = y\nshelves = /c\n", "other.conf")
    loaded = load(file, other, TEST__FAST__SHELVES="/d")
    assert loaded.sections["fast"] == {"shelves": "/a:1\n/b\n/c\n/d", "folder": "y"}
    assert [remark.partition(" is given")[0] for remark in loaded.remarks] == [
        f"{file}:9: [other] shelves"
    ]
    shown = write(tmp_path, settings_report.show(loaded), "shown.conf")
    assert load(shown).sections["fast"] == loaded.sections["fast"]


def test_what_another_part_refuses_is_told_with_its_place(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "[DEFAULT]\nbackends = fast\n[fast]\nfolder = hush\n"))
    error = loaded.refusal([("fast", "folder", "a path"), ("fast", "weight", "a value")])
    assert str(error) == (
        f"{tmp_path}/test.conf:4: [fast] folder: expected a path\n"
        "(not set): [fast] weight: expected a value"
    )
    assert [(one.section, one.option) for one in error.problems] == [
        ("fast", "folder"),
        ("fast", "weight"),
    ]


def test_what_another_part_leaves_is_listed_with_its_place(tmp_path: Path) -> None:
    file = write(tmp_path, "[DEFAULT]\nbackends = fast\n[fast]\na = 1\nb = 1\n")
    loaded = load(file).with_leftovers([("fast", "a", None), ("fast", "b", "it is gone")])
    assert settings_report.check(loaded) == [
        f"{file}:4: [fast] a is unknown: nobody reads it",
        f"{file}:5: [fast] b is obsolete: it is gone",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = before a section\n", ":1: name stands before the first"),
        ("[canary\n", r":1: expected \[section\]"),
        ("[]\n", r":1: expected \[section\]"),
        ("[DEFAULT]\ncanary\n", ":2: expected option = value"),
        ("[DEFAULT]\n= canary\n", ":2: an assignment without a name"),
        ("[DEFAULT]\n  canary = 1\n", ":2: an indented line continues nothing"),
    ],
)
def test_a_file_that_is_no_ini_is_refused_with_the_place(
    text: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=reason) as raised:
        load(write(tmp_path, text))
    # The line may be what is left of a secret that was broken in two.
    assert "canary" not in str(raised.value)


def test_missing_files_and_folders_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.conf: cannot be read"):
        load(tmp_path / "nowhere.conf")
    with pytest.raises(SettingsError, match="nowhere: is not a folder"):
        load(dirs=(tmp_path / "nowhere",))


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "latin.conf"
    file.write_bytes(b"[DEFAULT]\nname = \xfc\n")
    with pytest.raises(SettingsError, match=r"latin\.conf: cannot be read"):
        load(file)


def test_a_variable_without_a_section_is_refused() -> None:
    with pytest.raises(SettingsError, match="expected TEST__SECTION__OPTION"):
        load(TEST__NAME="x")


def test_variables_of_others_are_left_alone() -> None:
    assert load(TESTING__DEFAULT__PORT="x", TEST_DEFAULT_PORT="x").unknown == ()


def test_names_of_files_are_resolved_beside_the_files_that_name_them(tmp_path: Path) -> None:
    main = write(tmp_path, "", "etc/main.conf")
    extra = write(tmp_path, "", "etc/conf.d/extra.conf")
    loaded = load(main, dirs=(extra.parent,))
    assert loaded.resolve("policy.yaml") == extra.parent / "policy.yaml"
    beside = write(tmp_path, "", "etc/policy.yaml")
    assert loaded.resolve("policy.yaml") == beside
    assert loaded.resolve("/elsewhere/policy.yaml") == Path("/elsewhere/policy.yaml")
    assert load().resolve("policy.yaml") == Path.cwd() / "policy.yaml"


SECRETS = "[DEFAULT]\nbackends = s3\n[server]\nurl = https://me:hush@host/x\npassword = hush\n"


def test_secrets_are_printed_nowhere(tmp_path: Path) -> None:
    store = "[s3]\ns3_store_secret_key = hush\ns3_store_bucket = b\nquiet = hush\n"
    file = write(tmp_path, SECRETS + store)
    loaded = load(file)
    assert loaded.settings.server.url == "https://me:hush@host/x"
    shown = settings_report.show(loaded)
    for text in (
        shown,
        repr(loaded),
        repr(loaded.settings),
        str(settings_report.effective(loaded)),
    ):
        assert "hush" not in text
    assert "url = https://me:***@host/x" in shown
    assert "password = ***" in shown
    assert "s3_store_secret_key = ***\ns3_store_bucket = b\nquiet = ***" in shown


def test_a_bad_secret_is_not_told(tmp_path: Path) -> None:
    class Keys(BaseModel):
        """[keys]: secrets."""

        model_config = GROUP

        key: str = option("", "A key.", secret=True, min_length=8)

    class WithKeys(BaseModel):
        """One group."""

        keys: Keys = Keys()

    with pytest.raises(SettingsError) as error:
        common.load(
            WithKeys,
            config_files=[write(tmp_path, "[keys]\nkey = hush\n")],
            environ={},
            env_prefix="TEST",
        )
    assert "[keys] key: expected" in str(error.value)
    assert "hush" not in str(error.value)


def test_what_is_shown_can_be_read_back(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "[DEFAULT]\nnames = a, b\ncap = 1KB\n[server]\nmode = slow\n"))
    shown = write(tmp_path, settings_report.show(loaded), "shown.conf")
    assert load(shown).settings == loaded.settings


def test_the_sample_uncommented_is_the_defaults(tmp_path: Path) -> None:
    text = settings_report.sample(Settings)
    assert load(write(tmp_path, text)).settings == Settings()
    assignments = "\n".join(
        line.removeprefix("# ")
        for line in text.splitlines()
        if line.startswith("[") or " = " in line
    )
    loaded = load(write(tmp_path, assignments))
    assert loaded.settings == Settings()
    assert loaded.unknown == ()


def test_check_lists_what_is_not_read_as_meant(tmp_path: Path) -> None:
    file = write(tmp_path, "[DEFAULT]\nnmae = x\nold = y\nname = $x\n")
    unknown, unused, remark = settings_report.check(load(file))
    assert unknown == f"{file}:2: [DEFAULT] nmae is unknown: nobody reads it"
    assert unused == f"{file}:3: [DEFAULT] old is obsolete: it is gone"
    assert remark.startswith(f"{file}:4: [DEFAULT] name has a $")
    assert settings_report.check(load(write(tmp_path, "[DEFAULT]\nname = x\n"))) == []


@pytest.mark.parametrize(
    ("flavor", "identity"),
    [
        ("keystone", "keystone"),
        ("keystone+caching", "keystone"),
        ("keystone+cachemanagement", "keystone"),
        ("trusted", "trusted"),
        ("none+caching", "none"),
    ],
)
def test_the_flavor_tells_where_identities_come_from(flavor: str, identity: str) -> None:
    assert common.PasteDeploy(flavor=flavor).identity == identity


@pytest.mark.parametrize("flavor", ["", "caching", "keystone+none", "keystone+magic"])
def test_a_flavor_that_would_leave_identities_open_is_refused(flavor: str) -> None:
    # In Glance's files `caching` alone means that everyone is an administrator.
    with pytest.raises(ValueError, match="not a flavor"):
        common.PasteDeploy(flavor=flavor)


def test_the_process_environment_is_read_if_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(os.environ, "TEST__DEFAULT__NAME", "from the process")
    loaded = common.load(Settings, config_files=[], env_prefix="TEST")
    assert loaded.settings.default.name == "from the process"
