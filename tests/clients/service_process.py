"""Nova's, Cinder's or Ironic's own code for images. Run by the Python of their environment.

`service_process.py nova nova.conf` takes orders as lines of JSON on standard input, and answers
each with a line on standard output. An order is carried out in a fork: nothing of it is left for
the next. `{"call": "api.get", "who": …, "arguments": […], "named": {…}, "options": {…}}` calls a
method with the context of a user; options, by "group.name", are those of the service's own.
"""
# pyright: basic, reportMissingImports=false

import functools
import inspect
import json
import os
import signal
import sys
import tempfile
import traceback
import types
from pathlib import Path

HANGS_AFTER_S = 90


def nova(file):
    """`api` is nova.image.glance.API, `rbd` what Nova does where its disks are in Ceph."""
    import nova.conf
    import nova.context
    from nova.image import glance
    from nova.virt.libvirt import imagebackend

    nova.conf.CONF([], project="nova", default_config_files=[file])
    # Its method asks nothing of the disk that it is a method of.
    rbd = types.SimpleNamespace(
        copy_to_store=functools.partial(imagebackend.Rbd.copy_to_store, None)
    )
    called = {"api": lambda _: glance.API(), "rbd": lambda _: rbd}
    return nova.conf.CONF, nova.context.RequestContext, called, True


def cinder(file):
    """`service` is cinder.image.glance.GlanceImageService."""
    from cinder import context
    from cinder.common import config
    from cinder.image import image_utils

    config.CONF([], project="cinder", default_config_files=[file])
    called = {"service": lambda _: image_utils.glance.GlanceImageService()}
    return config.CONF, context.RequestContext, called, True


def ironic(file):
    """`service` is ironic.common.glance_service.image_service.GlanceImageService."""
    from ironic.common import context, image_service
    from ironic.conf import CONF

    CONF([], project="ironic", default_config_files=[file])
    called = {"service": lambda made: image_service.GlanceImageService(context=made)}
    return CONF, context.RequestContext, called, False


def carry_out(order, service):
    conf, context_of, targets, takes_context = service
    who = order["who"]
    named = {"service_catalog": who["catalog"]} if takes_context else {}
    context = context_of(
        user_id=who["user_id"],
        project_id=who["project_id"],
        roles=who["roles"],
        auth_token=who["token"],
        **named,
    )
    for name, value in order["options"].items():
        group, _, option = name.rpartition(".")
        conf.set_override(option, value, group or None)
    target, _, method = order["call"].partition(".")
    called = getattr(targets[target](context), method)
    arguments = [meant(argument) for argument in order["arguments"]]
    try:
        given = [context, *arguments] if takes_context else arguments
        return {"value": plain(called(*given, **order["named"]))}
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        return {"error": names, "message": str(error), "trace": traceback.format_exc()}


def meant(argument):
    """The file that `from:…` or `to:…` names; another argument as it is."""
    kind, _, path = argument.partition(":") if isinstance(argument, str) else ("", "", "")
    if kind == "from":
        return Path(path).open("rb")
    if kind == "to":
        return Path(path).open("wb")
    return argument


def plain(value):
    """What can be told in JSON: data as text, what is iterated over to its end."""
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)) or inspect.isgenerator(value):
        return [plain(one) for one in value]
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "wrapped") and not hasattr(value, "__iter__"):
        return plain(value.wrapped)
    if hasattr(value, "__iter__") and not isinstance(value, str):
        parts = list(value)
        return plain(b"".join(parts) if all(isinstance(one, bytes) for one in parts) else parts)
    return value


def in_a_fork(order, service):
    with tempfile.TemporaryFile("w+") as outcome:
        child = os.fork()
        if child == 0:
            signal.alarm(HANGS_AFTER_S)
            code = 1
            try:
                json.dump(carry_out(order, service), outcome, default=str)
                outcome.flush()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            return {"error": ["ProcessFailed"], "message": str(status), "trace": ""}
        outcome.seek(0)
        return json.load(outcome)


if __name__ == "__main__":
    _, name, file = sys.argv
    service = {"nova": nova, "cinder": cinder, "ironic": ironic}[name](file)
    for line in sys.stdin:
        print(json.dumps(in_a_fork(json.loads(line), service)), flush=True)  # noqa: T201
