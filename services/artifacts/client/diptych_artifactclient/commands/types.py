"""`artifact type-list|schema`."""

import argparse
from typing import Final

from osc_lib.command import command

from diptych_artifactclient.commands.arguments import add_type, service
from diptych_artifactclient.commands.artifacts import Table

# Column, key of a field's schema, what holds if it isn't there.
_COLUMNS: Final = (
    ("Glare_type", "glareType", None),
    ("Mutable", "mutable", False),
    ("Required", "required_on_activate", True),
    ("Sortable", "sortable", False),
    ("Filters", "filter_ops", None),
    ("Available_values", "enum", ""),
)


class ListTypes(command.Lister):
    """List of type names"""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """All that are enabled."""
        types = service(self).types()
        return ("Name", "Version"), [(name, one["version"]) for name, one in types.items()]


class ShowSchema(command.Lister):
    """Schema of type name."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        add_type(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """The fields of the type."""
        schema = service(self).schema(parsed_args.type_name)["properties"]
        rows = [
            (name, *(field.get(key, default) for _, key, default in _COLUMNS))
            for name, field in schema.items()
        ]
        return ("Name", *(column for column, _, _ in _COLUMNS)), rows
