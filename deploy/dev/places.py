"""Where the development stack keeps its things, and as whom its servers run."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = CHECKOUT / ".dev"
LOCKS = CHECKOUT / "tests" / "locks"
VENV = CHECKOUT / ".venv"


class DevError(Exception):
    """Something a developer can put right; the message says what, and is all that is shown."""


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged user of this machine that a server is run as."""

    name: str
    uid: int
    gid: int


def unprivileged() -> Account | None:
    """The account for a server that refuses to run as root; None when we aren't root ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        # Minimal images may lack `nobody`; any other account without rights of its own will do.
        others = [one for one in pwd.getpwall() if one.pw_uid != 0]
        if not others:
            raise DevError(
                "PostgreSQL refuses to run as root and this machine has no other user: "
                "add one (for example `useradd --system nobody`) and try again"
            ) from None
        entry = others[-1]
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def give(path: Path, account: Account | None) -> None:
    """Hand one file or folder to the account; nothing where we run as ourselves."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def is_alive(pid: int) -> bool:
    """True while the process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # A zombie answers signals all the same.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state != "Z"
