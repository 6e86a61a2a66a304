"""Print, as JSON, what each command of `openstack artifact` takes. Run by a client's Python."""
# pyright: basic, reportMissingImports=false

import json
from importlib.metadata import entry_points

from openstackclient.shell import OpenStackShell


def told(action):
    return {
        "options": sorted(action.option_strings),
        "takes": action.nargs,
        "default": action.default,
    }


def arguments(command):
    parser = command.load()(OpenStackShell(), None).get_parser("")
    return {action.dest: told(action) for action in parser._actions}


commands = entry_points(group="openstack.artifact.v1")
print(json.dumps({one.name.replace("_", " "): arguments(one) for one in commands}))  # noqa: T201
