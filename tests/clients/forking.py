"""Orders carried out each in a fork of one process, whose imports are done once.

An order is a line of JSON on standard input, its outcome a line on standard output. Nothing of a
fork is left for the next.
"""
# pyright: basic, reportMissingImports=false

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from importlib.metadata import entry_points
from pathlib import Path

import cliff.command

HANGS_AFTER_S = 90


def load_commands():
    """Load what `openstack` loads before it looks what to do: every command of every service.

    That is four fifths of what a command takes.
    """
    for group in entry_points().groups:
        if group.startswith("openstack."):
            for found in entry_points(group=group):
                found.load()
    # For the help of a command; it keeps the result.
    cliff.command._get_distributions_by_modules()


def answer_prompt(child, err, keyboard, text):
    """Type a line when the child has asked for it, or has ended."""
    # What is typed before a prompt for a password is thrown away by it.
    while not os.fstat(err.fileno()).st_size:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            return
        time.sleep(0.05)
    os.write(keyboard, f"{text}\n".encode())


def carry_out(order, act, keyboard, terminal):
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        Path(order["stdin"]).open("rb") if order["stdin"] else contextlib.nullcontext() as given,
    ):
        child = os.fork()
        if child == 0:
            signal.alarm(HANGS_AFTER_S)
            # As a person at a terminal: `glance` takes what comes from elsewhere for data.
            os.dup2(given.fileno() if given else terminal, 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = 1
            try:
                code = act(order) or 0
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else bool(error.code)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        if order.get("typed") is not None:
            answer_prompt(child, err, keyboard, order["typed"])
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "out": out.read().decode(errors="surrogateescape"),
            "err": err.read().decode(errors="replace"),
        }


def serve(act):
    """Carry out orders by `act(order)`, which returns the code or raises SystemExit."""
    keyboard, terminal = os.openpty()
    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line), act, keyboard, terminal)), flush=True)  # noqa: T201
