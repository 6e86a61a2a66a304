"""Log lines have their request's ids, and no secrets."""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from diptych_common import logs

FERNET = "gAAAAABnZ2hvc3RzLWFuZC1nb2JsaW5zLWFyZS1ub3QtcmVhbA=="
JWS = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1c2VyMTIzNCJ9.c2lnbmF0dXJl-_x"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """The process's logging, as it was, afterwards."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    root.handlers = []
    tokens = logs.request_id.set(None), logs.global_request_id.set(None)
    yield
    logs.request_id.reset(tokens[0])
    logs.global_request_id.reset(tokens[1])
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)


def configure(file: Path, *, use_json: bool = False, debug: bool = False) -> None:
    logs.configure(service="diptych-images", log_file=str(file), use_json=use_json, debug=debug)


def last(file: Path) -> str:
    return file.read_text().splitlines()[-1]


def test_a_text_line_in_a_request_is_oslos(tmp_path: Path) -> None:
    configure(tmp_path / "log")
    logs.request_id.set("req-1")
    logs.global_request_id.set("req-global")
    logging.getLogger("diptych_images.api").info(
        "hello %s", "there", extra={"user_id": "u1", "project_id": "p1"}
    )
    pattern = (
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \d+ INFO diptych_images\.api"
        r" \[req-global req-1 u1 p1 - - -\] hello there"
    )
    assert re.fullmatch(pattern, last(tmp_path / "log"))


def test_a_text_line_outside_of_requests_has_no_ids(tmp_path: Path) -> None:
    configure(tmp_path / "log")
    logging.getLogger("diptych_images").warning("started")
    assert last(tmp_path / "log").endswith(" WARNING diptych_images [-] started")


def test_a_clients_newline_begins_no_line(tmp_path: Path) -> None:
    configure(tmp_path / "log")
    logging.getLogger("diptych_images").info("path %s", "/x\r\n2026-01-01 forged")
    assert last(tmp_path / "log").endswith("path /x\\r\\n2026-01-01 forged")
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_a_json_line_has_ids_extra_and_exception(tmp_path: Path) -> None:
    configure(tmp_path / "log", use_json=True)
    logs.request_id.set("req-1")
    try:
        raise RuntimeError("no such luck")
    except RuntimeError:
        logging.getLogger("diptych_images").exception(
            "failed: %d", 7, extra={"status": 500, "path": Path("/x"), "sizes": (1, 2)}
        )
    line = json.loads(last(tmp_path / "log"))
    assert line["message"] == "failed: 7"
    assert line["level"] == "ERROR"
    assert line["service"] == "diptych-images"
    assert line["logger"] == "diptych_images"
    assert line["request_id"] == "req-1"
    assert line["status"] == 500
    assert line["path"] == "/x"
    assert line["sizes"] == [1, 2]
    assert "RuntimeError: no such luck" in line["exception"]
    assert line["time"].endswith("+00:00")
    assert "global_request_id" not in line


def test_debug_tells_more_of_ours_and_libraries_stay_quiet_without(tmp_path: Path) -> None:
    configure(tmp_path / "plain")
    logging.getLogger("diptych_common").debug("ours")
    logging.getLogger("httpx").info("theirs")
    assert (tmp_path / "plain").read_text() == ""
    configure(tmp_path / "debug", debug=True)
    logging.getLogger("diptych_common").debug("ours")
    logging.getLogger("httpx").info("theirs")
    assert len((tmp_path / "debug").read_text().splitlines()) == 2


def test_a_rotated_file_is_made_anew(tmp_path: Path) -> None:
    configure(tmp_path / "log")
    logging.getLogger("diptych_images").info("before")
    (tmp_path / "log").rename(tmp_path / "log.1")
    logging.getLogger("diptych_images").info("after")
    assert last(tmp_path / "log.1").endswith("before")
    assert last(tmp_path / "log").endswith("after")


def test_a_folder_gets_a_file_named_after_the_service(tmp_path: Path) -> None:
    logs.configure(service="diptych-images", log_dir=str(tmp_path))
    logging.getLogger("diptych_images").info("here")
    assert last(tmp_path / "diptych-images.log").endswith("here")


def test_without_a_file_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="diptych-images")
    logging.getLogger("diptych_images").info("here")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("here\n")


def test_configuring_again_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="diptych-images")
    logs.configure(service="diptych-images")
    logging.getLogger("diptych_images").info("once")
    assert capsys.readouterr().err.count("once") == 1


SECRETS = (
    f"token {FERNET} seen",
    f"token {JWS} seen",
    "X-Auth-Token: s3cr3t",
    "x-service-token=s3cr3t",
    "{'X-Subject-Token': 's3cr3t', 'a': 'b'}",
    "[(b'x-auth-token', b's3cr3t')]",
    "Authorization: Bearer s3cr3t",
    "'authorization': 'Basic s3cr3t'",
    "Cookie: session=s3cr3t",
    '{"password": "s3cr3t"}',
    "{'admin_password': 's3cr3t with blanks'}",
    "s3_store_secret_key = s3cr3t",
    "application_credential_secret=s3cr3t&x=1",
    "postgresql://user:s3cr3t@host/database",
    "s3+https://AKIA:s3cr3t/with/slashes@host/bucket/key",
    "https://host/o?X-Amz-Signature=s3cr3t&x=1",
    "/v1/AUTH_x/c/o?temp_url_sig=s3cr3t&temp_url_expires=1",
)


@pytest.mark.parametrize("use_json", [False, True])
@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_not_logged(text: str, use_json: bool, tmp_path: Path) -> None:
    configure(tmp_path / "log", use_json=use_json)
    log = logging.getLogger("diptych_images")
    log.info("%s", text)
    log.info("by extra", extra={"request": {"seen": [text]}})
    try:
        raise RuntimeError(text)
    except RuntimeError:
        log.exception("by traceback")
    written = (tmp_path / "log").read_text()
    assert "by extra" in written
    assert "by traceback" in written
    for secret in ("s3cr3t", FERNET, JWS):
        assert secret not in written


def test_values_of_names_that_mean_a_secret_are_hidden_in_json(tmp_path: Path) -> None:
    configure(tmp_path / "log", use_json=True)
    logging.getLogger("diptych_images").info(
        "x", extra={"headers": {"X-Auth-Token": "plain", "Accept": "*/*"}, "password": "plain"}
    )
    line = json.loads(last(tmp_path / "log"))
    assert line["headers"] == {"X-Auth-Token": "***", "Accept": "*/*"}
    assert line["password"] == "***"


@pytest.mark.parametrize(
    "text",
    [
        "GET http://host:9292/v2/images?marker=1 by a@b",
        "image 7f0f1d4e-7a3b-4a43-8ad0-3b1e2d1f4c55 has the password policy",
        "token cache: 12 hits",
        "sqlalchemy postgresql://host/database",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    assert logs.redact(text) == text


def test_warnings_are_logged(tmp_path: Path) -> None:
    configure(tmp_path / "log")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)
    assert "UserWarning: careful" in (tmp_path / "log").read_text()
