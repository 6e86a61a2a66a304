"""The clients of artifacts, as `client_process` has those of images.

Run by the Python of python-glareclient's environment, or by that of python-openstackclient with our
plug-in beside it.
"""
# pyright: basic, reportMissingImports=false

import inspect
import json
import sys
import traceback
from pathlib import Path

import openstack
import openstackclient.shell
from forking import load_commands, serve

try:
    import glareclient
except ImportError:
    import diptych_artifactclient.commands.blobs
    import diptych_artifactclient.plugin  # noqa: F401
else:
    import glareclient.osc.plugin
    import glareclient.shell
    import glareclient_repairs

    glareclient_repairs.repair()

load_commands()


def act(order):
    return (library if "call" in order else script)(order)


def script(order):
    """`openstack`, or `glare` with an endpoint and a token as `glare` takes them."""
    kind, arguments = order["kind"], order["arguments"]
    if kind == "glare":
        endpoint, token = address(order["cloud"])
        arguments = ["--os-glare-url", endpoint, "--auth-token", token, *arguments]
    sys.argv = [kind, *arguments]
    return glareclient.shell.main(arguments) if kind == "glare" else openstackclient.shell.main()


def library(order):
    """A method of glareclient's Client: with a session, or with an endpoint and a token."""
    connection = openstack.connect(cloud=order["cloud"])
    if order["kind"] == "session":
        region = connection.config.get_region_name("artifact")
        named = {"service_type": "artifact", "region_name": region}
        called = glareclient.Client("1", session=connection.session, **named)
    else:
        endpoint, token = address(order["cloud"])
        called = glareclient.Client("1", endpoint, auth_token=token)
    for name in order["call"].split("."):
        called = getattr(called, name)
    try:
        arguments = [opened(argument) for argument in order["arguments"]]
        outcome = {"value": plain(called(*arguments, **order["named"]))}
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        outcome = {"error": names, "message": str(error), "trace": traceback.format_exc()}
    print(json.dumps(outcome))  # noqa: T201


def address(cloud):
    connection = openstack.connect(cloud=cloud)
    region = connection.config.get_region_name("artifact")
    session = connection.session
    return session.get_endpoint(service_type="artifact", region_name=region), session.get_token()


def opened(argument):
    """The file that `file:…` names; other arguments as they are."""
    is_file = isinstance(argument, str) and argument.startswith("file:")
    return Path(argument.removeprefix("file:")).open("rb") if is_file else argument


def plain(value):
    """What can be told in JSON: sequences as lists, data as text."""
    if inspect.isgenerator(value):
        return list(value)
    if isinstance(value, glareclient.common.utils.ResponseBlobWrapper):
        return b"".join(value).decode(errors="surrogateescape")
    return value


if __name__ == "__main__":
    serve(act)
