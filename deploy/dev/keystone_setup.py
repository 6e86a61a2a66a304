"""What is done inside Keystone's own environment: make its database, serve it, age a token.

Run by `dev.keystone` with that environment's Python, and by the container that the compose file has
for trying things out. Everything of Keystone's is imported late, so that `dev.keystone` can use the
rest from here. Nothing else of ours is imported.
"""
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false

import json
import os
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

PASSWORD = "secret"
PROJECTS = ("service", "demo", "other")
USERS = {
    # user: ((project or None, role), …)
    "glance": (("service", "service"), ("service", "admin")),
    "glare": (("service", "service"), ("service", "admin")),
    "demo": (("demo", "member"),),
    "reader": (("demo", "reader"),),
    "manager": (("demo", "manager"),),
    "other": (("other", "member"),),
    "loner": (),
}
SERVICES = {"identity": "keystone", "image": "glance", "artifact": "glare"}

_CONFIGURATION = """\
[DEFAULT]
log_file = {root}/keystone.log
use_stderr = false
[database]
connection = sqlite:///{root}/keystone.db
[token]
provider = fernet
expiration = {token_seconds}
[fernet_tokens]
key_repository = {root}/fernet
[fernet_receipts]
key_repository = {root}/fernet
[credential]
key_repository = {root}/credential
[identity]
# The least that bcrypt takes: this Keystone guards nothing.
password_hash_rounds = 4
[cache]
enabled = true
backend = oslo_cache.dict
[oslo_policy]
enforce_scope = true
enforce_new_defaults = true
"""


def configure(root: Path, *, token_seconds: int = 86400) -> None:
    """Write keystone.conf; everything that Keystone keeps will be in `root`."""
    text = _CONFIGURATION.format(root=root, token_seconds=token_seconds)
    (root / "keystone.conf").write_text(text)


def set_endpoints(root: Path, endpoints: Mapping[str, str]) -> None:
    """Set the addresses in the catalog by service type, while Keystone isn't running."""
    with closing(sqlite3.connect(root / "keystone.db")) as database, database:
        for kind, url in endpoints.items():
            database.execute(
                "UPDATE endpoint SET url = ? "
                "WHERE service_id IN (SELECT id FROM service WHERE type = ?)",
                (url, kind),
            )


def initialize(root: Path) -> None:
    """Make the schema, the keys, the administrator and all of the tables above, in one process.

    `admin` (password as everybody's) is administrator of project admin, of the domain Default and
    of the system. Endpoints get a placeholder, see `set_endpoints`. The ids of users and projects
    are left in ids.json.
    """
    # keystone-manage and the WSGI application both insist on parsing the options themselves, and
    # can do so only once in a process. Imported before the fork, the libraries are loaded once.
    import keystone.server.wsgi

    child = os.fork()
    if child == 0:
        _manage(root)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("keystone-manage failed")
    _populate(root, keystone.server.wsgi.initialize_public_application())


def _manage(root: Path) -> None:
    import grp
    import pwd

    import keystone.conf
    from keystone.cmd import cli
    from keystone.common import sql

    conf = keystone.conf.CONF
    conf.register_cli_opt(cli.command_opt)
    keystone.conf.configure()
    sql.initialize()

    def manage(*arguments: str) -> None:
        conf.reset()
        conf(
            [f"--config-file={root}/keystone.conf", *arguments],
            project="keystone",
            default_config_files=[],
        )
        conf.command.cmd_class.main()

    manage("db_sync")
    try:
        keys_for = (
            *("--keystone-user", pwd.getpwuid(os.getuid()).pw_name),
            *("--keystone-group", grp.getgrgid(os.getgid()).gr_name),
        )
    except KeyError:
        # In a container our uid may have no name; then files are simply left as we made them.
        keys_for = ()
    for repository in ("fernet", "credential"):
        (root / repository).mkdir(mode=0o700)
        manage(f"{repository}_setup", *keys_for)
    manage("bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "RegionOne")


def _populate(root: Path, application) -> None:
    from werkzeug.test import Client

    client = Client(application)

    def call(method: str, path: str, document: object = None):
        answer = client.open(f"/v3{path}", method=method, json=document, headers=headers)
        if answer.status_code >= 300:
            sys.exit(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer

    def create(kind: str, path: str, **fields: object) -> str:
        return json.loads(call("POST", path, {kind: fields}).data)[kind]["id"]

    headers: dict[str, str] = {}
    identity = {
        "methods": ["password"],
        "password": {"user": {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}},
    }
    scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
    answer = call("POST", "/auth/tokens", {"auth": {"identity": identity, "scope": scope}})
    headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
    admin = json.loads(answer.data)["token"]

    roles = {role["name"]: role["id"] for role in json.loads(call("GET", "/roles").data)["roles"]}
    projects = {
        name: create("project", "/projects", name=name, domain_id="default") for name in PROJECTS
    }
    users: dict[str, str] = {}
    for name, grants in USERS.items():
        users[name] = create("user", "/users", name=name, password=PASSWORD, domain_id="default")
        for project, role in grants:
            call("PUT", f"/projects/{projects[project]}/users/{users[name]}/roles/{roles[role]}")
    users["admin"] = admin["user"]["id"]
    projects["admin"] = admin["project"]["id"]
    call("PUT", f"/domains/default/users/{users['admin']}/roles/{roles['admin']}")

    for kind, name in SERVICES.items():
        create("service", "/services", type=kind, name=name)
    services = {
        one["type"]: one["id"] for one in json.loads(call("GET", "/services").data)["services"]
    }
    for service in services.values():
        for interface in ("public", "internal", "admin"):
            create(
                "endpoint",
                "/endpoints",
                service_id=service,
                interface=interface,
                region_id="RegionOne",
                url="http://127.0.0.1",
            )
    (root / "ids.json").write_text(json.dumps({"users": users, "projects": projects}))


def serve(host: str, port: int) -> None:
    """Serve Keystone until told to stop."""
    import waitress
    from keystone.wsgi.api import application

    # With more threads SQLite says "database is locked" now and then, which becomes a 500.
    waitress.serve(application, host=host, port=port, threads=1, ident=None)


def contain(root: Path, endpoints: Mapping[str, str]) -> None:
    """Do all of it in a container: make what `root` lacks, set the endpoints, serve everybody."""
    os.environ["OS_KEYSTONE_CONFIG_DIR"] = str(root)
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = str(root / "keystone.conf")
    if not (root / "ids.json").exists():
        configure(root)
        child = os.fork()
        if child == 0:
            initialize(root)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit("Keystone's database could not be made")
    set_endpoints(root, endpoints)
    serve("0.0.0.0", 5000)


def age(token: str) -> str:
    """Return the same token as if it had expired an hour ago."""
    import datetime

    import keystone.conf
    import msgpack
    from keystone.common import utils
    from keystone.token import token_formatters

    keystone.conf.configure()
    keystone.conf.CONF([], project="keystone")
    formatter = token_formatters.TokenFormatter()
    version, *payload = msgpack.unpackb(formatter.unpack(token))
    kind = next(one for one in token_formatters._PAYLOAD_CLASSES if one.version == version)
    names = (
        *("user_id", "methods", "system", "project_id", "domain_id", "expires_at", "audit_ids"),
        *("trust_id", "federated_group_ids", "identity_provider_id", "protocol_id"),
        *("access_token_id", "app_cred_id", "thumbprint"),
    )
    fields = dict(zip(names, kind.disassemble(payload), strict=True))
    hour_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    fields["expires_at"] = utils.isotime(hour_ago.replace(tzinfo=None), subsecond=True)
    return formatter.create_token(payload_class=kind, **fields)


if __name__ == "__main__":
    what, *values = sys.argv[1:]
    del sys.argv[1:]  # Keystone's application would parse what is left there as its own options.
    if what == "initialize":
        initialize(Path(values[0]))
    elif what == "serve":
        serve(values[0], int(values[1]))
    elif what == "contain":
        contain(Path(values[0]), dict(value.split("=", 1) for value in values[1:]))
    elif what == "age":
        print(age(values[0]))
