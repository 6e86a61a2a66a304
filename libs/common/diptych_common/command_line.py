"""The commands that services have: `api`, `doctor`, `db …`, `config …`, `policy …`, and so on.

Each service's `cli.py` makes them with its own settings, application, migrations and rules, and
adds what only it has. Exit codes: 0 all is well, 1 it is not, 2 the call or the settings are
wrong; `db check` has its own.
"""

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NoReturn, Protocol, TypeVar

import orjson
import typer
from sqlalchemy import Table
from sqlalchemy.exc import IntegrityError

from diptych_common import (
    jobs,
    jobs_report,
    logs,
    policy_report,
    purge,
    sealing,
    server,
    settings_report,
)
from diptych_common.application import Application
from diptych_common.database import NO_SUCH_TABLE, Connection, Database, MigrationRefused
from diptych_common.doctor import database as doctor_database
from diptych_common.doctor import findings, front
from diptych_common.doctor import identity as doctor_identity
from diptych_common.doctor import stores as doctor_stores
from diptych_common.doctor.findings import Examination, Notes
from diptych_common.doctor.front import Front
from diptych_common.errors import ApiError
from diptych_common.identity import Identity
from diptych_common.policy import PolicyError, Rule
from diptych_common.purge import Kept
from diptych_common.server import ServerError
from diptych_common.service import load_policy
from diptych_common.settings import Loaded, ServiceSettings, SettingsError

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--config-file", help="INI file; may be repeated, the last one wins."),
]
ConfigDirs = Annotated[
    list[Path] | None,
    typer.Option("--config-dir", help="Folder of *.conf files, read after the files."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")


def _as_it_is(loaded: Loaded[Any]) -> Loaded[Any]:
    return loaded


class Report(Protocol):
    """What a part of the service that this library does not know has to tell.

    `lines` are for people, `document` (as JSON has it) for machines. `hangs` if a call is still
    under way that cannot be ended.
    """

    @property
    def lines(self) -> Sequence[str]:
        """The text."""
        ...

    @property
    def document(self) -> object:
        """The same as JSON has it."""
        ...

    @property
    def is_well(self) -> bool:
        """Whether the command ends with exit code 0."""
        ...

    @property
    def hangs(self) -> bool:
        """Whether the process has to be ended by force."""
        ...


class StoreReport(Report, doctor_stores.Outcomes, Protocol):
    """What came of a check of stores, at length and in short."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoreReports(Generic[S]):
    """What the `stores` commands ask; all may raise the service's refusals.

    `check` takes the names of the stores to check (none: all) and the seconds that each may take;
    it cleans up when it is cancelled. `adopt` takes the name of a store whose place was changed on
    purpose, and returns what it did in words; None for a service that compares no places.
    """

    describe: Callable[[Loaded[S]], Report]
    check: Callable[[Loaded[S], Sequence[str], float], Coroutine[Any, Any, StoreReport]]
    adopt: Callable[[Loaded[S], str], Coroutine[Any, Any, str]] | None = None


R = TypeVar("R", bound=Report)


@dataclasses.dataclass(frozen=True, slots=True)
class BackgroundJobs:
    """What the `jobs` commands ask.

    `can_retry` are the kinds whose jobs may be run again after they failed or were cancelled: those
    that leave what they did. What is undone at the end of a job does not come back with it.
    """

    table: Table
    can_retry: Collection[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Patient(Generic[S]):
    """What `doctor` has to know of a service beyond what other commands do.

    `service_type` is its own in Keystone's catalog. `flavor` says where identities come from:
    "keystone", "none" (everyone is an administrator), or others, which are not examined. `front`
    says how to know such a service from outside, `others` examines what only this one needs.
    """

    service_type: str
    flavor: Callable[[S], str]
    front: Callable[[Loaded[S]], Front]
    outbox: Table
    others: Callable[[Loaded[S]], Mapping[str, Examination]]


@dataclasses.dataclass(frozen=True, slots=True)
class Service(Generic[S]):
    """What the commands need to know of a service.

    `load` reads the settings (keywords `config_files`, `config_dirs`); `create_app` makes the
    application of one process. `migrations` is
    the package of the revisions, None for a service without tables. `refusals` are the exceptions
    by which `create_app` says that the settings cannot be used. `with_leftovers` adds the options
    without effect in the sections that other parts read (stores); `stores` is None for a service
    without stores, `jobs` for one without background jobs. `named` are sections that may come
    several times. `admin_rule` is as in `Policy.load`. `kept` is what `db purge` removes beside
    ended jobs. `patient` is None for a service without `doctor`.
    """

    name: str
    model: type[S]
    load: Callable[..., Loaded[S]]
    create_app: Callable[[Loaded[S]], Application]
    rules: Sequence[Rule]
    migrations: str | None
    refusals: tuple[type[Exception], ...] = ()
    with_leftovers: Callable[[Loaded[S]], Loaded[S]] = _as_it_is
    stores: StoreReports[S] | None = None
    jobs: BackgroundJobs | None = None
    kept: Sequence[Kept] = ()
    named: settings_report.Named | None = None
    admin_rule: str | None = None
    patient: Patient[S] | None = None

    def settings(self, files: list[Path] | None, folders: list[Path] | None) -> Loaded[S]:
        """Read the settings, or end with a message and exit code 2."""
        with self.explained():
            return self.load(config_files=files or (), config_dirs=folders or ())

    @contextmanager
    def explained(self) -> Generator[None]:
        """Turn what an operator can mend into a message and exit code 2."""
        try:
            yield
        except (
            SettingsError, PolicyError, MigrationRefused, ServerError, ApiError, OSError,
            *self.refusals,
        ) as error:  # fmt: skip
            typer.echo(f"{self.name}: {error}", err=True)
            raise typer.Exit(2) from error

    def configure_logs(self, loaded: Loaded[S]) -> None:
        """Send log lines where the settings say."""
        default = loaded.settings.default
        logs.configure(
            service=self.name,
            use_json=default.use_json,
            debug=default.debug,
            log_file=default.log_file,
            log_dir=default.log_dir,
        )


def commands(service: Service[S]) -> typer.Typer:
    """The command line of a service; more commands can be added to it."""
    app = typer.Typer(name=service.name, no_args_is_help=True, add_completion=False)

    def serve(loaded: Loaded[S]) -> None:
        default, metrics = loaded.settings.default, loaded.settings.metrics
        with service.explained():
            service.configure_logs(loaded)
            for line in settings_report.check(service.with_leftovers(loaded)):
                logs.operator.warning("%s", line)
            server.serve(
                partial(service.create_app, loaded),
                host=default.bind_host,
                port=default.bind_port,
                processes=default.workers,
                metrics=(metrics.bind_host, metrics.bind_port) if metrics.enabled else None,
                metrics_folder=metrics.directory,
                graceful_timeout=default.graceful_timeout,
                drain_delay=default.drain_delay,
            )

    if service.jobs is None:

        @app.command()
        def api(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
            """Serve the API until SIGTERM or Ctrl-C."""
            serve(service.settings(config_file, config_dir))

    else:

        @app.command("api")
        def api_with_jobs(
            with_worker: Annotated[
                bool | None,
                typer.Option(
                    "--with-worker/--without-worker",
                    help="Run jobs in these processes too; else as [jobs] with_worker says.",
                ),
            ] = None,
            config_file: ConfigFiles = None,
            config_dir: ConfigDirs = None,
        ) -> None:
            """Serve the API until SIGTERM or Ctrl-C."""
            loaded = service.settings(config_file, config_dir)
            serve(loaded if with_worker is None else _with_worker(loaded, with_worker))

        app.add_typer(_jobs(service, service.jobs), name="jobs", help="What runs in background.")

    if service.migrations is not None:
        app.add_typer(_db(service, service.migrations), name="db", help="The database's schema.")
    app.add_typer(_config(service), name="config", help="What the service is told.")
    if service.rules:
        app.add_typer(_policy(service), name="policy", help="Who may do what.")
    if service.stores is not None:
        app.add_typer(_stores(service, service.stores), name="stores", help="Where the bytes are.")
    if service.patient is not None:
        _doctor(app, service, service.patient)
    return app


def _with_worker(loaded: Loaded[S], with_worker: bool) -> Loaded[S]:
    own = loaded.settings.jobs.model_copy(update={"with_worker": with_worker})
    return dataclasses.replace(loaded, settings=loaded.settings.model_copy(update={"jobs": own}))


def _db(service: Service[S], package: str) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True)

    def url(files: list[Path] | None, folders: list[Path] | None) -> str:
        return service.settings(files, folders).settings.database.connection

    def migrate(
        files: list[Path] | None,
        folders: list[Path] | None,
        phase: Literal["all", "expand", "contract"],
    ) -> None:
        from diptych_common import migrations

        with service.explained():
            address = url(files, folders)
            applied = asyncio.run(migrations.upgrade(address, package, phase))
        for revision in applied:
            typer.echo(f"applied {revision}")
        typer.echo("The schema is up to date." if phase == "all" else f"{phase}: done.")

    @app.command()
    def upgrade(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
        """Bring the schema to this release; safe to run at the same time elsewhere."""
        migrate(config_file, config_dir, "all")

    @app.command()
    def expand(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
        """Add what this release needs; nodes of the release before go on meanwhile, and after."""
        migrate(config_file, config_dir, "expand")

    @app.command()
    def contract(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
        """Remove what only older releases needed: when all nodes run this one."""
        migrate(config_file, config_dir, "contract")

    @app.command()
    def current(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
        """Print the revisions that the schema is at."""
        from diptych_common import migrations

        with service.explained():
            found = asyncio.run(migrations.current(url(config_file, config_dir), package))
        for revision in found:
            typer.echo(revision)

    @app.command()
    def check(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
        """Exit with 0 if nothing is to be done, 3 if expand is, 5 if contract is.

        With 6 if a newer release has expanded the schema: this one can go on with it.
        """
        from diptych_common import migrations

        with service.explained():
            needed = asyncio.run(migrations.check(url(config_file, config_dir), package))
        words = {
            migrations.UP_TO_DATE: "The schema is up to date.",
            migrations.EXPAND_NEEDED: "Run: db expand",
            migrations.CONTRACT_NEEDED: "Run: db contract",
            migrations.EXPANDED_FURTHER: "A newer release has expanded the schema.",
        }
        typer.echo(words[needed])
        raise typer.Exit(needed)

    _purge(app, service)
    return app


def _purge(app: typer.Typer, service: Service[S]) -> None:
    kept = [
        *service.kept,
        *([] if service.jobs is None else [purge.ended_jobs(service.jobs.table)]),
    ]

    @app.command("purge")
    def purge_(
        age_in_days: Annotated[
            int,
            typer.Option(
                "--age-in-days", "--age_in_days", min=0, max=36500, help="Only what is older."
            ),
        ] = 30,
        max_rows: Annotated[
            int,
            typer.Option("--max-rows", "--max_rows", min=-1, help="Of each kind; -1: all of them."),
        ] = -1,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Only tell how many there are.")
        ] = False,
        config_file: ConfigFiles = None,
        config_dir: ConfigDirs = None,
    ) -> None:
        """Remove what is kept of things that are over; prints how many there were of each."""
        loaded = service.settings(config_file, config_dir)
        age = timedelta(days=age_in_days)

        async def purged() -> dict[str, int]:
            name = f"{service.name}-purge"
            async with Database(loaded.settings.database, application_name=name) as db:
                if dry_run:
                    return await purge.count(db, kept, older_than=age)
                at_most = None if max_rows < 0 else max_rows
                return await purge.purge(db, kept, older_than=age, at_most=at_most)

        with service.explained(), _needs_schema():
            numbers = asyncio.run(purged())
        for name, number in numbers.items():
            typer.echo(f"{'To be removed' if dry_run else 'Removed'}: {number} {name}.")


@contextmanager
def _needs_schema() -> Generator[None]:
    try:
        yield
    except NO_SUCH_TABLE as error:
        raise MigrationRefused(
            "The database does not have this release's tables; run: db upgrade"
        ) from error


def _config(service: Service[S]) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True)

    @app.command()
    def sample() -> None:
        """Print a configuration file with every option, its meaning and its default."""
        typer.echo(settings_report.sample(service.model, named=service.named), nl=False)

    @app.command()
    def check(
        config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False
    ) -> None:
        """Tell what becomes of each option; exit code 1 if one is unknown or unsupported."""
        loaded = service.settings(config_file, config_dir)
        with service.explained():
            service.create_app(loaded)
            loaded = service.with_leftovers(loaded)
        verdicts = settings_report.verdicts(loaded)
        if as_json:
            found = {
                "options": [dataclasses.asdict(one) for one in verdicts],
                "remarks": list(loaded.remarks),
            }
            typer.echo(orjson.dumps(found))
        else:
            for line in (*verdicts, *loaded.remarks):
                typer.echo(line)
        is_lost = any(one.outcome in ("unknown", "unsupported") for one in verdicts)
        raise typer.Exit(1 if is_lost else 0)

    @app.command()
    def show(
        config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False
    ) -> None:
        """Print the effective values; secrets are hidden."""
        loaded = service.settings(config_file, config_dir)
        if as_json:
            typer.echo(orjson.dumps(settings_report.effective(loaded)))
        else:
            typer.echo(settings_report.show(loaded), nl=False)

    return app


def _policy(service: Service[S]) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True)

    @app.command()
    def sample() -> None:
        """Print a policy file with every rule, its default and the requests that ask it."""
        typer.echo(policy_report.sample(service.rules), nl=False)

    @app.command()
    def check(
        rule: Annotated[str | None, typer.Argument(help="Explain what this rule decides.")] = None,
        roles: Annotated[str, typer.Option(help="The caller's roles, by commas.")] = "",
        project: Annotated[str | None, typer.Option(help="The caller's project.")] = None,
        user: Annotated[str | None, typer.Option(help="The caller.")] = None,
        target: Annotated[
            list[str] | None, typer.Option(help="An attribute of the target: name=value.")
        ] = None,
        config_file: ConfigFiles = None,
        config_dir: ConfigDirs = None,
    ) -> None:
        """Check the policy files, or explain what a rule decides; exit code 1 if it denies."""
        loaded = service.settings(config_file, config_dir)
        with service.explained():
            policy = load_policy(service.rules, loaded, admin_rule=service.admin_rule)
        if rule is None:
            for line in policy_report.check(policy):
                typer.echo(line)
            return
        if rule not in policy.compiled.checks:
            raise typer.BadParameter(f"there is no rule {rule}")
        who = Identity(
            user_id=user,
            project_id=project,
            roles=policy_report.with_implied_roles(
                role.strip() for role in roles.split(",") if role.strip()
            ),
        )
        try:
            about = policy_report.parse_target(target or ())
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        explained = policy_report.explain(policy, rule, who, about)
        for line in explained.lines():
            typer.echo(line)
        raise typer.Exit(0 if explained.holds else 1)

    return app


def _stores(service: Service[S], reports: StoreReports[S]) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True)

    @app.command("list")
    def list_(
        config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False
    ) -> None:
        """Print the stores as they are configured; asks none of them."""
        loaded = service.settings(config_file, config_dir)
        with service.explained():
            report = reports.describe(loaded)
        _print(report, as_json=as_json)

    @app.command()
    def check(
        names: Annotated[
            list[str] | None, typer.Argument(help="Stores to check; all if none is named.")
        ] = None,
        timeout: Annotated[
            float, typer.Option(min=0.1, help="Seconds after which a store is given up.")
        ] = 60.0,
        config_file: ConfigFiles = None,
        config_dir: ConfigDirs = None,
        as_json: AsJson = False,
    ) -> None:
        """Write, read and delete an object in each store; exit code 1 if one fails.

        Run it as the user that the service runs as: others have other rights.
        """
        loaded = service.settings(config_file, config_dir)
        # Not to the service's log file, which may not be this user's to make.
        logs.configure(service=service.name)
        with service.explained():
            report = asyncio.run(_undisturbed(reports.check(loaded, names or (), timeout), as_json))
        raise typer.Exit(0 if report.is_well else 1)

    if reports.adopt is not None:
        _adopt(app, service, reports.adopt)
    return app


def _doctor(app: typer.Typer, service: Service[S], patient: Patient[S]) -> None:
    @app.command()
    def doctor(
        url: Annotated[
            str | None,
            typer.Option(help="Where clients reach the service: examines the proxy there too."),
        ] = None,
        cafile: Annotated[
            str | None,
            typer.Option(
                help="Authorities for the certificate there; else [keystone_authtoken] cafile."
            ),
        ] = None,
        timeout: Annotated[
            float, typer.Option(min=0.1, help="Seconds after which a question is given up.")
        ] = 15.0,
        config_file: ConfigFiles = None,
        config_dir: ConfigDirs = None,
        as_json: AsJson = False,
    ) -> None:
        """Examine all that the service stands on; exit code 1 if something keeps it from working.

        Run it on a node, as the user that the service runs as.
        """
        loaded = service.settings(config_file, config_dir)
        # Not to the service's log file, which may not be this user's to make.
        logs.configure(service=service.name)
        with service.explained():
            service.create_app(loaded)
            examinations = _examinations(service, patient, service.with_leftovers(loaded))
            if url is not None:
                authorities = cafile or loaded.settings.keystone_authtoken.cafile
                examinations["proxy"] = front.examination(url, patient.front(loaded), authorities)
        diagnosis = asyncio.run(
            _undisturbed(findings.examined(examinations, seconds=timeout), as_json)
        )
        raise typer.Exit(0 if diagnosis.is_well else 1)


def _examinations(
    service: Service[S], patient: Patient[S], loaded: Loaded[S]
) -> dict[str, Examination]:
    """What is examined, in the order in which it is told. Raises PolicyError."""
    settings = loaded.settings
    examinations: dict[str, Examination] = {
        "settings": _of_settings(service, loaded),
        "database": doctor_database.examination(
            settings.database,
            name=f"{service.name}-doctor",
            revisions=service.migrations,
            jobs_table=None if service.jobs is None else service.jobs.table,
            outbox=patient.outbox,
        ),
        "identity": _of_identity(patient, loaded),
    }
    if service.stores is not None:
        check = service.stores.check
        examinations["stores"] = doctor_stores.examination(
            lambda seconds: check(loaded, (), seconds)
        )
    return {**examinations, **patient.others(loaded)}


def _of_settings(service: Service[S], loaded: Loaded[S]) -> Examination:
    policy = load_policy(service.rules, loaded, admin_rule=service.admin_rule)

    async def examine(notes: Notes) -> None:
        unknown = [f"[{one.section}] {one.option}" for one in loaded.unknown]
        if unknown:
            told = f"Unknown, and ignored: {', '.join(unknown)}."
            notes.warn("settings", told, "Is it misspelt? See config check.")
        else:
            notes.ok("settings", "All options are known.")
        remarks = policy_report.check(policy)
        for remark in remarks:
            notes.warn("policy", f"{remark}.", "See policy check.")
        if not remarks:
            notes.ok("policy", f"{len(policy.compiled.overrides)} rules are the operator's.")

    return examine


def _of_identity(patient: Patient[S], loaded: Loaded[S]) -> Examination:
    flavor = patient.flavor(loaded.settings)
    if flavor == "keystone":
        return doctor_identity.examination(
            loaded.settings.keystone_authtoken,
            service_type=patient.service_type,
            front=patient.front(loaded),
        )

    async def examine(notes: Notes) -> None:
        told = f"They come by the flavor {flavor}"
        if flavor == "none":
            advice = "Set [paste_deploy] flavor to keystone."
            notes.warn("identities", f"{told}: everyone is an administrator.", advice)
        else:
            notes.ok("identities", f"{told}, which is not examined.")

    return examine


def _adopt(
    app: typer.Typer,
    service: Service[S],
    adopt_store: Callable[[Loaded[S], str], Coroutine[Any, Any, str]],
) -> None:
    @app.command()
    def adopt(
        name: Annotated[str, typer.Argument(help="The store.")],
        config_file: ConfigFiles = None,
        config_dir: ConfigDirs = None,
    ) -> None:
        """Take the directory that this node has for the right one: it was replaced on purpose.

        Other nodes that have another one refuse to start from then on.
        """
        loaded = service.settings(config_file, config_dir)
        with service.explained():
            typer.echo(asyncio.run(adopt_store(loaded, name)))


def _jobs(service: Service[S], background: BackgroundJobs) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True)
    table = background.table

    def ask(
        files: list[Path] | None,
        folders: list[Path] | None,
        question: Callable[[Connection], Awaitable[T]],
    ) -> T:
        """What the database answers, in a transaction of its own."""
        loaded = service.settings(files, folders)

        async def asked() -> T:
            name = f"{service.name}-jobs"
            async with (
                Database(loaded.settings.database, application_name=name) as db,
                db.write() as connection,
            ):
                return await question(connection)

        with service.explained(), _needs_schema():
            return asyncio.run(asked())

    def refuse(reason: str) -> NoReturn:
        typer.echo(f"{service.name}: {reason}", err=True)
        raise typer.Exit(1)

    @app.command("list")
    def list_(
        everything: Annotated[
            bool, typer.Option("--all", help="Also those that have ended.")
        ] = False,
        state: Annotated[
            list[jobs.State] | None, typer.Option(help="Only those in this state; may be repeated.")
        ] = None,
        kind: Annotated[str | None, typer.Option(help="Only those of this kind.")] = None,
        limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 100,
        config_file: ConfigFiles = None,
        config_dir: ConfigDirs = None,
        as_json: AsJson = False,
    ) -> None:
        """Print the jobs that have not ended: what waits, what runs, how far it is."""
        unfinished = (jobs.State.WAITING, jobs.State.RUNNING)
        states = state or (tuple(jobs.State) if everything else unfinished)
        # One more, to tell that there are more.
        rows = ask(
            config_file,
            config_dir,
            lambda connection: jobs.listed(
                connection, table, states=states, kind=kind, limit=limit + 1
            ),
        )
        if as_json:
            typer.echo(orjson.dumps([jobs_report.document(row) for row in rows[:limit]]))
            return
        for line in jobs_report.table(rows[:limit]) if rows else ["No jobs."]:
            typer.echo(line)
        if len(rows) > limit:
            typer.echo(f"There are more than these {limit}: see --limit, --state and --kind.")

    @app.command()
    def show(
        job_id: Annotated[int, typer.Argument(metavar="ID", help="The job.")],
        config_file: ConfigFiles = None,
        config_dir: ConfigDirs = None,
        as_json: AsJson = False,
    ) -> None:
        """Print all that is known of a job, save for a user's token that it may hold."""
        row = ask(config_file, config_dir, lambda connection: jobs.find(connection, table, job_id))
        if row is None:
            refuse(f"There is no job {job_id}.")
        if as_json:
            typer.echo(orjson.dumps(jobs_report.document(row)))
        else:
            for line in jobs_report.details(row):
                typer.echo(line)

    @app.command()
    def cancel(
        job_id: Annotated[int, typer.Argument(metavar="ID", help="The job.")],
        config_file: ConfigFiles = None,
        config_dir: ConfigDirs = None,
    ) -> None:
        """Have a job stopped and, where its kind can be undone, what it did undone."""

        async def cancelled(connection: Connection) -> str | None:
            if await jobs.cancel_one(connection, table, job_id):
                return None
            row = await jobs.find(connection, table, job_id)
            if row is None:
                return f"There is no job {job_id}."
            if row["period"] is not None:
                return f"Job {job_id} ({row['kind']}) recurs: it cannot be cancelled."
            return f"Job {job_id} ({row['kind']}) has ended: {row['state']}."

        refusal = ask(config_file, config_dir, cancelled)
        if refusal is not None:
            refuse(refusal)
        typer.echo(f"Job {job_id} is to be cancelled: a worker does that within seconds.")

    @app.command()
    def retry(
        job_id: Annotated[int, typer.Argument(metavar="ID", help="The job.")],
        config_file: ConfigFiles = None,
        config_dir: ConfigDirs = None,
    ) -> None:
        """Run a failed or cancelled job again, or a waiting one at once."""

        async def retried(connection: Connection) -> str | None:
            if await jobs.retry(connection, table, job_id, kinds=background.can_retry):
                return None
            row = await jobs.find(connection, table, job_id)
            if row is None:
                return f"There is no job {job_id}."
            called = f"Job {job_id} ({row['kind']})"
            if row["state"] in ("running", "succeeded"):
                return f"{called} needs no other try: {row['state']}."
            return (
                f"{called} has ended ({row['state']}), and what it did was undone: ask the service"
                " anew for what it was to do."
            )

        try:
            refusal = ask(config_file, config_dir, retried)
        except IntegrityError:
            refusal = f"An equal job was enqueued since job {job_id} ended: see jobs list."
        if refusal is not None:
            refuse(refusal)
        typer.echo(f"Job {job_id} is due now.")

    @app.command()
    def key() -> None:
        """Print a new key for [jobs] secret_keys."""
        typer.echo(sealing.new_key())

    return app


def _say_nothing(_loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
    pass


async def _undisturbed(call: Coroutine[Any, Any, R], as_json: bool) -> R:
    """Await a report and print it; a signal that ends the process lets the call clean up."""
    loop, task = asyncio.get_running_loop(), asyncio.create_task(call)
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        # Tasks of an HTTP client that was cut off fail unheard, which asyncio would tell at length.
        loop.set_exception_handler(_say_nothing)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        report = await task
    except asyncio.CancelledError:
        typer.echo("Interrupted.", err=True)
        _end(128 + received[0])
    _print(report, as_json=as_json)
    if report.hangs:
        _end(0 if report.is_well else 1)
    return report


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(report.document))
    else:
        for line in report.lines:
            typer.echo(line)


def _end(code: int) -> NoReturn:
    """End the process without waiting for anything that still hangs."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
