"""The real clients, each command in a fork of one process. Run by the Python of their environment.

To import them takes a second or two, so that is done once. An order is a line of JSON on standard
input, its outcome a line on standard output. A fork does what the script of that name in `bin/`
does, or calls one method of a library; nothing of it is left for the next.
"""
# pyright: basic, reportMissingImports=false

import contextlib
import inspect
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import glanceclient.shell
import glanceclient.v2.client
import openstack
import openstack.image.v2._proxy
import openstackclient.identity.client
import openstackclient.image.client
import openstackclient.image.v2.image
import openstackclient.shell
import requests

HANGS_AFTER_S = 90


def script(order):
    """`openstack` or `glance`."""
    sys.argv = [order["kind"], *order["arguments"]]
    main = {"openstack": openstackclient.shell.main, "glance": glanceclient.shell.main}
    return main[order["kind"]]()


def library(order):
    """A method of openstacksdk's connection, or of one of glanceclient's two kinds of client."""
    connection = openstack.connect(cloud=order["cloud"])
    session = connection.session
    region = connection.config.get_region_name("image")
    if order["kind"] == "sdk":
        called = connection
    elif order["kind"] == "glanceclient":
        called = glanceclient.Client("2", session=session, region_name=region)
    else:
        endpoint = session.get_endpoint(service_type="image", region_name=region)
        called = glanceclient.Client("2", endpoint, token=session.get_token())
    for name in order["call"].split("."):
        called = getattr(called, name)
    try:
        arguments = [meant(argument, connection) for argument in order["arguments"]]
        outcome = {"value": plain(called(*arguments, **order["named"]))}
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        outcome = {"error": names, "message": str(error), "trace": traceback.format_exc()}
    print(json.dumps(outcome))  # noqa: T201


def meant(argument, connection):
    """The file that `file:…` names, the image or task with the id after `image:` or `task:`.

    Other arguments as they are.
    """
    kind, _, named = argument.partition(":") if isinstance(argument, str) else ("", "", "")
    if kind == "file":
        return Path(named).open("rb")
    if kind == "image":
        return connection.image.get_image(named)
    if kind == "task":
        return connection.image.get_task(named)
    return argument


def plain(value):
    """What can be told in JSON: resources as dicts, sequences as lists, data as text."""
    if isinstance(value, requests.Response):
        value = b"".join(value.iter_content(1 << 16))
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "wrapped"):
        return plain(value.wrapped)
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)) or inspect.isgenerator(value):
        return [plain(one) for one in value]
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return plain(b"".join(value))
    return value


def answer_prompt(child, err, keyboard, text):
    """Type a line when the child has asked for it, or has ended."""
    # What is typed before a prompt for a password is thrown away by it.
    while not os.fstat(err.fileno()).st_size:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            return
        time.sleep(0.05)
    os.write(keyboard, f"{text}\n".encode())


def carry_out(order, keyboard, terminal):
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
                code = (library if "call" in order else script)(order) or 0
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


if __name__ == "__main__":
    keyboard, terminal = os.openpty()
    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line), keyboard, terminal)), flush=True)  # noqa: T201
