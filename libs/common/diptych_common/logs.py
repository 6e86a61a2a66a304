"""Log lines: one JSON object each, or oslo.log's form; never a token or a password in them.

Modules log by `logging.getLogger(__name__)`. What belongs to a line beyond its text goes into
`extra`: JSON lines have it by name, text lines show `user_id` and `project_id` of it.
"""

import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Final, cast

import orjson

from diptych_common import tracing

# Set for the time of a request, and for nothing but log lines.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
global_request_id: ContextVar[str | None] = ContextVar("global_request_id", default=None)

# What the people who run the service should know, and no request is to blame for.
operator: Final = logging.getLogger("diptych.operator")

# What every record has; the rest came in by `extra`.
_OWN: Final = frozenset(
    {*logging.LogRecord("", 0, "", 0, "", None, None).__dict__, "message", "asctime", "taskName"}
)


def configure(
    *,
    service: str,
    use_json: bool = False,
    debug: bool = False,
    log_file: str | None = None,
    log_dir: str | None = None,
) -> None:
    """Send all log lines of this process to a file, or to standard error if there is none.

    Replaces what was configured before. `service` is the distribution's name, `diptych-images`; it
    is in every JSON line, and names the file in `log_dir` if `log_file` does not. A file that was
    moved away (logrotate) is made anew with the next line. Raises OSError if it cannot be opened.
    """
    path = _log_path(service, log_file, log_dir)
    handler = WatchedFileHandler(path, encoding="utf-8") if path else logging.StreamHandler()
    handler.setFormatter(JsonLines(service) if use_json else TextLines())
    root = logging.getLogger()
    for old in [*root.handlers]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    # Libraries tell at INFO what each request's access line tells already.
    root.setLevel(logging.INFO if debug else logging.WARNING)
    for package in ("diptych", "diptych_common", "diptych_store", service.replace("-", "_")):
        logging.getLogger(package).setLevel(logging.DEBUG if debug else logging.INFO)
    logging.captureWarnings(True)
    # No line has them, and each record would ask for them.
    logging.logThreads = logging.logMultiprocessing = False


def _log_path(service: str, log_file: str | None, log_dir: str | None) -> Path | None:
    if log_file is None and log_dir is None:
        return None
    return Path(log_dir or ".") / (log_file or f"{service}.log")


class TextLines(logging.Formatter):
    """Lines as oslo.log writes them by default, so that operators' parsers go on working.

    `2026-01-31 12:00:00.123 4711 INFO module [global_id request_id user project - - -] text`;
    `[-]` outside of requests. Source: oslo.log 7, `logging_context_format_string`.
    """

    default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        """One line, and those of a traceback."""
        user, project = getattr(record, "user_id", None), getattr(record, "project_id", None)
        ids = [global_request_id.get(), request_id.get(), user, project]
        context = " ".join(str(value or "-") for value in [*ids, None, None, None])
        # A client's newline must not begin a line of its own.
        text = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        line = (
            f"{self.formatTime(record)} {record.process} {record.levelname} {record.name}"
            f" [{context if any(ids) else '-'}] {text}"
        )
        return redact("\n".join([line, *filter(None, [_traceback(self, record)])]))


class JsonLines(logging.Formatter):
    """Lines of one JSON object each."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        """The object: `time` in UTC, `level`, `logger`, `message`, ids, `extra`, `exception`."""
        document: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self.service,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            "request_id": request_id.get(),
            "global_request_id": global_request_id.get(),
            **tracing.ids(),
            **{name: value for name, value in vars(record).items() if name not in _OWN},
            "exception": _traceback(self, record) or None,
        }
        present = {name: value for name, value in document.items() if value is not None}
        clean = _redact_values(present)
        return orjson.dumps(clean, default=_as_text, option=orjson.OPT_NON_STR_KEYS).decode()


def _as_text(value: object) -> str:
    return redact(str(value))


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts: list[str] = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


# --- What must not be in a log ----------------------------------------------------------------

HIDDEN: Final = "***"

# Clients choose part of what is logged: every pattern takes time linear in the text. None may scan
# on to the end of a word, or of the text, from each of many places where it can begin.
_SENSITIVE = r"(?:password|passwd|secret|secret_key|adminpass|api_key)"
_REDACTIONS: Final = (
    # Keystone's tokens (Fernet, JWS), wherever they stand.
    (re.compile(r"gAAAA[\w=-]{20,}|(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]+"), HIDDEN),
    # Headers, as lines or in a printed dict or list of pairs.
    (
        re.compile(
            r"(?i)((?:x-(?:auth|subject|service|storage)-token|(?:proxy-)?authorization|"
            r"(?:set-)?cookie)['\"]?\s*[:=,]\s*(?:b?['\"])?)(?:(?:basic|bearer|aws4-hmac-sha256)\s+)?"
            r"[^\s'\",]+"
        ),
        rf"\1{HIDDEN}",
    ),
    # password=…, "secret_key": "…"
    (
        re.compile(rf"(?i)({_SENSITIVE}['\"]?\s*[:=]\s*)(\"[^\"]*\"|'[^']*'|[^\s'\",&}}]+)"),
        rf"\1{HIDDEN}",
    ),
    # Credentials in URLs; a password may have slashes, and an @ that somebody forgot to encode.
    (re.compile(r"(://[^/\s:@'\"]{0,255}+:)[^\s'\"]{1,512}@"), rf"\1{HIDDEN}@"),
    # Signed URLs.
    (
        re.compile(
            r"(?i)((?:x-amz-signature|x-amz-security-token|temp_url_sig|signature)=)[^&\s]+"
        ),
        rf"\1{HIDDEN}",
    ),
)


# Nothing is redacted without one of these in it, in lower case. The expressions take 0.3 ms for an
# access line, as long as a read takes altogether; this takes a microsecond.
_TELLTALES: Final = (
    "gaaaa", "eyj", "token", "authorization", "cookie", "pass", "secret", "api_key", "://",
    "signature", "temp_url_sig",
)  # fmt: skip


def redact(text: str) -> str:
    """The text without tokens, passwords, and credentials in URLs."""
    lowered = text.lower()
    if not any(telltale in lowered for telltale in _TELLTALES):
        return text
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


_SENSITIVE_KEY: Final = re.compile(rf"(?i)[\w-]*{_SENSITIVE}|.*token|authorization|cookie")


def _redact_values(value: object) -> object:
    """`redact` for every text in a JSON document, and whole values of names that mean a secret."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {
            str(name): HIDDEN
            if isinstance(one, str) and _SENSITIVE_KEY.fullmatch(str(name))
            else _redact_values(one)
            for name, one in items
        }
    if isinstance(value, (list, tuple)):
        return [_redact_values(one) for one in cast("list[object]", value)]
    return value
