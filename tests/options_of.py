"""Prints all options of the named lists of oslo.config, as JSON: run in an environment with them.

Each is section, name, value (a default, or what could be one), and its former names.
"""
# pyright: basic, reportMissingImports=false

import json
import sys
from importlib.metadata import entry_points
from typing import Any

# Of options without a default; of other types a text.
_VALUES = {
    "BoolOpt": "true",
    "FloatOpt": "7.5",
    "HostAddressOpt": "127.0.0.1",
    "IntOpt": "7",
    "IPOpt": "127.0.0.1",
    "PortOpt": "7777",
    "URIOpt": "http://127.0.0.1:7777/",
}


def _value(option: Any) -> str:
    default = option.sample_default if option.sample_default is not None else option.default
    if isinstance(default, dict):
        return ",".join(f"{key}:{value}" for key, value in default.items())
    if isinstance(default, (list, tuple)):
        return ",".join(map(str, default))
    if default is None or default == "":
        return _VALUES.get(type(option).__name__, "x")
    return str(default)


found = {}
for lists in entry_points(group="oslo.config.opts"):
    if lists.name not in sys.argv[1:]:
        continue
    for group, options in lists.load()():
        section = "DEFAULT" if group is None else getattr(group, "name", group)
        for option in options:
            former = [[old.group or section, old.name] for old in option.deprecated_opts]
            found[section, option.dest] = [section, option.dest, _value(option), former]
json.dump([*found.values()], sys.stdout)
