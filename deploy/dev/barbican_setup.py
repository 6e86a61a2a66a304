"""What is done inside Barbican's own environment: write its configuration and serve it.

Run by `dev.barbican` with that environment's Python. Everything of Barbican's is imported late, so
that `dev.barbican` can use the rest from here. Nothing else of ours is imported.
"""
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false

import sys
from pathlib import Path

KEYSTONE_USER = "barbican"

# Barbican looks for this in its home folder; it has no other way to be told.
_CONFIGURATION = """\
[DEFAULT]
host_href = {url}
db_auto_create = true
[database]
connection = sqlite:///{root}/barbican.db
[secretstore]
enabled_secretstore_plugins = store_crypto
[crypto]
enabled_crypto_plugins = simple_crypto
[simple_crypto_plugin]
kek = {key}
[keystone_authtoken]
auth_type = password
auth_url = {keystone_url}
www_authenticate_uri = {keystone_url}
username = {user}
password = {password}
project_name = service
user_domain_id = default
project_domain_id = default
"""
# Of Barbican's own pipeline what a request needs.
_PIPELINE = """\
[composite:main]
use = egg:Paste#urlmap
/: health
/v1: api
[app:health]
paste.app_factory = oslo_middleware:Healthcheck.app_factory
[pipeline:api]
pipeline = authtoken context microversion application
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
[filter:context]
paste.filter_factory = barbican.api.middleware.context:ContextMiddleware.factory
[filter:microversion]
paste.filter_factory = barbican.api.middleware.microversion:MicroversionMiddleware.factory
[app:application]
paste.app_factory = barbican.api.app:create_main_app
"""
# It guards nothing.
_KEY = "ZGlwdHljaC1kaXB0eWNoLWRpcHR5Y2gtZGlwdHljaC0="


def configure(root: Path, *, url: str, keystone_url: str, keystone_password: str) -> None:
    """Write all configuration files; everything that Barbican keeps will be in `root`."""
    root.mkdir(exist_ok=True)
    (root / "barbican.conf").write_text(
        _CONFIGURATION.format(
            root=root,
            url=url,
            key=_KEY,
            keystone_url=keystone_url,
            user=KEYSTONE_USER,
            password=keystone_password,
        )
    )
    (root / "paste.ini").write_text(_PIPELINE)


def serve(root: Path, host: str, port: int) -> None:
    """Serve until told to stop."""
    import waitress
    from paste import deploy

    # With more threads SQLite says "database is locked" now and then, as with Keystone.
    application = deploy.loadapp(f"config:{root}/paste.ini")
    waitress.serve(application, host=host, port=port, threads=1, ident=None)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
