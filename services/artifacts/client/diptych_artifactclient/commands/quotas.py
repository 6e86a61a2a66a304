"""`artifact quota list|show|set`, which glareclient does not have."""

import argparse
from collections.abc import Mapping

from osc_lib.command import command

from diptych_artifactclient.commands.arguments import pair, service
from diptych_artifactclient.commands.artifacts import Table
from diptych_artifactclient.errors import BadArgument


class ListQuotas(command.Lister):
    """List the quotas of all projects; those without a project are everybody's (admin only)"""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """A row for each quota."""
        quotas = service(self).quotas()
        rows = [("", name, value) for name, value in quotas["global_quotas"].items()]
        rows += [
            (project["project_id"], one["quota_name"], one["quota_value"])
            for project in quotas["quotas"]
            for one in project["project_quotas"]
        ]
        return ("Project", "Name", "Value"), rows


class ShowQuotas(command.Lister):
    """Show the quotas that hold for a project"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "project",
            metavar="<PROJECT_ID>",
            nargs="?",
            help="Id of the project (default: your own).",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """A row for each quota."""
        return _table(service(self).project_quotas(parsed_args.project))


class SetQuotas(command.Lister):
    """Set quotas of a project; others that it has stay (admin only)"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What can be given."""
        parser = super().get_parser(prog_name)
        parser.add_argument("project", metavar="<PROJECT_ID>", help="Id of the project.")
        parser.add_argument(
            "--quota",
            metavar="<NAME=VALUE>",
            action="append",
            default=[],
            help="max_artifact_number or max_uploaded_data, or one of them with :<TYPE_NAME>;"
            " -1 is no limit; can be repeated.",
        )
        parser.add_argument(
            "--unset",
            metavar="<NAME>",
            action="append",
            default=[],
            help="Let the service's setting hold for the project again; can be repeated.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Read a project's quotas, change them, write them: the service takes all or none."""
        client = service(self)
        own = {
            one["quota_name"]: one["quota_value"]
            for project in client.quotas()["quotas"]
            if project["project_id"] == parsed_args.project
            for one in project["project_quotas"]
        }
        for name in parsed_args.unset:
            own.pop(name, None)
        for text in parsed_args.quota:
            name, value = pair(text)
            try:
                own[name] = int(value)
            except ValueError:
                raise BadArgument(f"{value!r} is no number.") from None
        client.set_quotas(parsed_args.project, own)
        return _table(client.project_quotas(parsed_args.project))


def _table(quotas: Mapping[str, int]) -> Table:
    return ("Name", "Value"), sorted(quotas.items())
