"""The real clients, each command in a fork of one process. Run by the Python of their environment.

To import them takes a second or two, so that is done once. A fork does what the script of that name
in `bin/` does, or calls one method of a library.
"""
# pyright: basic, reportMissingImports=false, reportCallIssue=false

import inspect
import json
import sys
import traceback
from pathlib import Path

import glanceclient.shell
import glanceclient.v2.client
import openstack
import openstack.image.v2._proxy
import openstackclient.shell
import requests
from forking import load_commands, serve


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


def act(order):
    return (library if "call" in order else script)(order)


if __name__ == "__main__":
    load_commands()
    serve(act)
