"""The daemon as it is deployed, with the real Keystone; and the real clients of several users."""

import asyncio
import json
import secrets
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev import artifactclient
from dev.keystone import PASSWORD, Keystone
from dev.seaweedfs import Seaweedfs
from dev.swift import Swift
from diptych_common import migrations, sealing

from tests import databases, web
from tests.artifacts import service as artifacts_service
from tests.clients import artifact_clouds
from tests.clients.artifact_clouds import ArtifactCloud
from tests.clients.artifact_services import ArtifactDaemon, ArtifactService
from tests.clients.clouds import CLIENT_PROCESS, Cloud, PasswordCloud
from tests.daemon import Daemon
from tests.images.service import OCTETS, configuration
from tests.images.stores import Bucket, Container

MIB = 1 << 20
IMAGE_SIZE_CAP = 80 * MIB
TAG_QUOTA = 4
MEMBER_QUOTA = 2
# cloud: project of the user with the same name
# store: as `enabled_backends` has it
STORES = {
    "fast": "fast:file",
    "cheap": "cheap:file",
    "one": "one:s3",
    "two": "two:s3",
    "objects": "objects:swift",
    "web": "web:http",
}
USERS = {
    "demo": "demo",
    "reader": "demo",
    "manager": "demo",
    "other": "other",
    "admin": "admin",
}
Polled = Callable[..., dict[str, Any]]

# More than all tests together need.
LIMITS = {
    "image_size_total": 100_000,
    "image_stage_total": 50_000,
    "image_count_total": 10_000,
    "image_count_uploading": 1_000,
}
METHODS = ("glance-direct", "web-download", "copy-image", "glance-download", "swift-local")
# As an operator has it who lets some of the users use tasks.
POLICY = """
"tasks_api_access": "role:admin or role:manager"
"""


@pytest.fixture(scope="session")
def client_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of the clients, and of the daemon's stores on files: `fast/` and `cheap/`."""
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="session")
def _region_name() -> str:
    return f"region-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def _limits(keystone: Keystone) -> dict[str, str]:
    """The settings of a service whose limits Keystone has: those of LIMITS."""
    token = keystone.token("admin", system=True)
    service = keystone.call("POST", "/services", {"service": {"type": "limited"}}, token=token)
    service_id = service["service"]["id"]
    endpoint = {"service_id": service_id, "interface": "public", "url": "http://limited"}
    place = keystone.call("POST", "/endpoints", {"endpoint": endpoint}, token=token)
    registered = [
        {"service_id": service_id, "resource_name": name, "default_limit": limit}
        for name, limit in LIMITS.items()
    ]
    keystone.call("POST", "/registered_limits", {"registered_limits": registered}, token=token)
    return {
        "DEFAULT__USE_KEYSTONE_LIMITS": "true",
        "OSLO_LIMIT__ENDPOINT_ID": place["endpoint"]["id"],
        "OSLO_LIMIT__USERNAME": "admin",
        "OSLO_LIMIT__PASSWORD": PASSWORD,
    }


@pytest.fixture(scope="session")
async def image_daemon(
    keystone: Keystone,
    s3: Seaweedfs,
    swift: Swift,
    postgres_url: str,
    client_folder: Path,
    _region_name: str,
    _limits: dict[str, str],
) -> AsyncGenerator[Daemon]:
    backends = {"one": Bucket(s3), "two": Bucket(s3), "objects": Container(swift)}
    stores = {"DEFAULT__ENABLED_BACKENDS": ", ".join(STORES.values())}
    for name, backend in backends.items():
        stores |= backend.options(name)
        if isinstance(backend, Bucket):
            await backend.make()
    database = await databases.create(postgres_url)
    await migrations.upgrade(database, "diptych_images.migrations")
    policy = client_folder / "policy.yaml"
    policy.write_text(POLICY)
    options = {
        "DEFAULT__IMAGE_SIZE_CAP": str(IMAGE_SIZE_CAP),
        "DEFAULT__IMAGE_TAG_QUOTA": str(TAG_QUOTA),
        "DEFAULT__IMAGE_MEMBER_QUOTA": str(MEMBER_QUOTA),
        "DEFAULT__WORKERS": "1",
        "DEFAULT__IMAGE_CACHE_DIR": str(client_folder / "cache"),
        "DEFAULT__ENABLED_IMPORT_METHODS": ", ".join(METHODS),
        # Without it there are commands of `glance` that can do nothing.
        "DEFAULT__SHOW_MULTIPLE_LOCATIONS": "true",
        "OS_GLANCE_STAGING_STORE__FILESYSTEM_STORE_DATADIR": str(client_folder / "staging"),
        "JOBS__WITH_WORKER": "true",
        "JOBS__SECRET_KEYS": sealing.new_key(),
        "OSLO_POLICY__POLICY_FILE": str(policy),
        # All that may be asked is on this machine, at whatever ports were free.
        "OUTBOUND__ALLOWED_NETWORKS": "127.0.0.0/8",
        "OUTBOUND__ALLOWED_PORTS": "",
        "IMPORT_FILTERING_OPTS__ALLOWED_PORTS": "",
        **by_keystone(keystone),
        **_limits,
        "KEYSTONE_AUTHTOKEN__REGION_NAME": _region_name,
        # Where the others' key manager is, too.
        "BARBICAN__BARBICAN_REGION_NAME": "RegionOne",
    }
    environ = configuration(database, client_folder, **options, **stores)
    daemon = Daemon(environ, client_folder / "log")
    daemon.start()
    yield daemon
    assert daemon.stop() == 0
    await databases.drop(database)
    for backend in backends.values():
        await backend.remove()


def by_keystone(keystone: Keystone) -> dict[str, str]:
    """What `service.configuration` takes to have identities from this Keystone."""
    authtoken = {
        "WWW_AUTHENTICATE_URI": keystone.url,
        "AUTH_URL": keystone.url,
        "AUTH_TYPE": "password",
        "USERNAME": "glance",
        "PASSWORD": PASSWORD,
        "PROJECT_NAME": "service",
        "USER_DOMAIN_NAME": "Default",
        "PROJECT_DOMAIN_NAME": "Default",
        "SERVICE_TYPE": "image",
    }
    return {
        "PASTE_DEPLOY__FLAVOR": "keystone",
        **{f"KEYSTONE_AUTHTOKEN__{name}": value for name, value in authtoken.items()},
    }


@pytest.fixture(scope="session")
def region(keystone: Keystone, image_daemon: Daemon, swift: Swift, _region_name: str) -> str:
    """A region of Keystone's catalog whose image service is this process's daemon."""
    make_region(
        keystone,
        _region_name,
        {
            "identity": keystone.url,
            "image": image_daemon.url,
            "object-store": f"{swift.keystone_proxy_url}/v1/AUTH_$(project_id)s",
        },
    )
    return _region_name


def make_region(keystone: Keystone, name: str, endpoints: Mapping[str, str]) -> None:
    """Add a region with these services, by type, to Keystone's catalog."""
    keystone.call("POST", "/regions", {"region": {"id": name}})
    for kind, url in endpoints.items():
        [service] = keystone.call("GET", f"/services?type={kind}")["services"]
        endpoint = {
            "service_id": service["id"],
            "interface": "public",
            "region_id": name,
            "url": url,
        }
        keystone.call("POST", "/endpoints", {"endpoint": endpoint})


@pytest.fixture(scope="session")
def application_credential(keystone: Keystone) -> Callable[..., dict[str, str]]:
    """`application_credential(roles=["reader"])`: one of the user demo, as clouds.yaml has it."""

    def make(**fields: object) -> dict[str, str]:
        path = f"/users/{keystone.user_id('demo')}/application_credentials"
        wanted = {"name": secrets.token_hex(8), **fields}
        made = keystone.call(
            "POST", path, {"application_credential": wanted}, token=keystone.token("demo", "demo")
        )["application_credential"]
        return {
            "auth_url": keystone.url,
            "application_credential_id": made["id"],
            "application_credential_secret": made["secret"],
        }

    return make


@pytest.fixture(scope="session")
def _auths(
    keystone: Keystone,
    image_daemon: Daemon,
    application_credential: Callable[..., dict[str, str]],
) -> dict[str, dict[str, object]]:
    """What clouds.yaml says of each cloud beside its region."""

    def password(user: str, project: str) -> dict[str, str]:
        return {
            "auth_url": keystone.url,
            "username": user,
            "password": PASSWORD,
            "project_name": project,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }

    only_list = {"path": "/v2/images", "method": "GET", "service": "image"}
    by_credential = {"auth_type": "v3applicationcredential"}
    return {
        **{user: {"auth": password(user, project)} for user, project in USERS.items()},
        "robot": {**by_credential, "auth": application_credential()},
        "reading-robot": {
            **by_credential,
            "auth": application_credential(roles=[{"name": "reader"}]),
        },
        "listing-robot": {
            **by_credential,
            "auth": application_credential(access_rules=[only_list]),
        },
        "stranger": {
            "auth_type": "admin_token",
            "auth": {"endpoint": f"{image_daemon.url}/v2", "token": "not-a-token"},
        },
        # As Rackspace's cloud was: images are made by tasks, of objects in Swift.
        "tasks": {"auth": password("manager", "demo"), "image_api_use_tasks": True},
        "overridden": {
            "auth": password("demo", "demo"),
            "image_endpoint_override": image_daemon.url,
            "region_name": "RegionOne",
        },
    }


@pytest.fixture(scope="session")
def _client_process(
    clients_env: Path, client_folder: Path, region: str, _auths: dict[str, dict[str, object]]
) -> Generator[subprocess.Popen[str]]:
    clouds = {name: {"region_name": region, **auth} for name, auth in _auths.items()}
    # JSON is YAML too.
    (client_folder / "clouds.yaml").write_text(json.dumps({"clouds": clouds}))
    environ = {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": str(client_folder),
        "OS_CLIENT_CONFIG_FILE": str(client_folder / "clouds.yaml"),
    }
    with subprocess.Popen(
        [clients_env / "python", "-W", "ignore", CLIENT_PROCESS],
        env=environ,
        cwd=client_folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.fixture(scope="session")
def cloud(_client_process: subprocess.Popen[str]) -> Callable[[str], Cloud]:
    """`cloud("robot")`: the clients of any of the clouds in clouds.yaml."""
    return lambda name: Cloud(name, _client_process)


@pytest.fixture(scope="session")
def _password_cloud(
    _client_process: subprocess.Popen[str], _auths: dict[str, dict[str, object]], region: str
) -> Callable[[str], PasswordCloud]:
    def make(name: str) -> PasswordCloud:
        auth = _auths[name]["auth"]
        assert isinstance(auth, dict)
        options = {"region_name": region, **auth}
        return PasswordCloud(
            name,
            _client_process,
            tuple(f"--os-{option.replace('_', '-')}={value}" for option, value in options.items()),
        )

    return make


@pytest.fixture(scope="session")
def demo(_password_cloud: Callable[[str], PasswordCloud]) -> PasswordCloud:
    """A member of project demo."""
    return _password_cloud("demo")


@pytest.fixture(scope="session")
def other(_password_cloud: Callable[[str], PasswordCloud]) -> PasswordCloud:
    """A member of project other."""
    return _password_cloud("other")


@pytest.fixture(scope="session")
def reader(_password_cloud: Callable[[str], PasswordCloud]) -> PasswordCloud:
    """One who may only read in project demo."""
    return _password_cloud("reader")


@pytest.fixture(scope="session")
def admin(_password_cloud: Callable[[str], PasswordCloud]) -> PasswordCloud:
    """The administrator, in project admin."""
    return _password_cloud("admin")


@pytest.fixture
def name() -> str:
    """A name that no other image or artifact has."""
    return f"image-{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def make_qcow2(
    debian: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Path]:
    """`make_qcow2(MIB)`: a disk with that many random bytes on it, written by qemu-img."""
    qemu_img = debian("qemu-utils", "qemu-img")

    def make(size: int) -> Path:
        folder = tmp_path_factory.mktemp("disk")
        raw, qcow2 = folder / "disk.raw", folder / "disk.qcow2"
        raw.write_bytes(secrets.token_bytes(size))
        subprocess.run(
            [qemu_img, "convert", "-f", "raw", "-O", "qcow2", raw, qcow2],
            check=True,
        )
        raw.unlink()
        return qcow2

    return make


@pytest.fixture(scope="session")
def qcow2(make_qcow2: Callable[[int], Path]) -> Path:
    """A small disk."""
    return make_qcow2(MIB)


@pytest.fixture
def http(keystone: Keystone, image_daemon: Daemon) -> Generator[httpx.Client]:
    """Requests of the user demo without any client, to make what a test starts from."""
    headers = {"X-Auth-Token": keystone.token("demo", "demo"), "Accept": "application/json"}
    with httpx.Client(base_url=image_daemon.url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def make_image(http: httpx.Client) -> Callable[..., dict[str, Any]]:
    """`make_image(data=b"…", name="x")`: a raw image of demo's, active if it has data."""

    def make(*, data: bytes | None = None, **fields: Any) -> dict[str, Any]:
        body = {"disk_format": "raw", "container_format": "bare", **fields}
        image = http.post("/v2/images", json=body).raise_for_status().json()
        if data is not None:
            http.put(image["file"], content=data, headers=OCTETS).raise_for_status()
        return image

    return make


@pytest.fixture
def polled(http: httpx.Client) -> Polled:
    """`polled(image, done)`: what the image is as soon as `done` of it is true."""

    def poll(image: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while True:
            shown = http.get(f"/v2/images/{image}").raise_for_status().json()
            if done(shown):
                return shown
            assert time.monotonic() < deadline, shown
            time.sleep(0.1)

    return poll


@dataclass(frozen=True)
class Site:
    """A web server that images are downloaded from."""

    server: web.Web
    files: dict[str, bytes]

    def put(self, name: str, data: bytes) -> str:
        """Serve this from now on; its URL."""
        self.files[f"/{name}"] = data
        return self.url(name)

    def url(self, name: str) -> str:
        return f"{self.server.url}/{name}"

    def asked_for(self, name: str) -> int:
        """How often it was asked for."""
        return [asked.target for asked in self.server.asked].count(f"/{name}")


@pytest.fixture(scope="session")
def site() -> Generator[Site]:
    files: dict[str, bytes] = {}

    async def handle(asked: web.Asked, writer: asyncio.StreamWriter) -> None:
        found = files.get(asked.target)
        answer = web.answer(status=404) if found is None else web.answer(found)
        await answer(asked, writer)

    with web.serving_from_a_thread(handle) as server:
        yield Site(server, files)


def tag_of(names: list[str]) -> str:
    """The tag of the images in `sixty`, and of no others."""
    return names[0].rpartition("-")[0]


@pytest.fixture
def sixty(make_image: Callable[..., dict[str, Any]], name: str) -> list[str]:
    """The names of 60 images, more than two pages, from the oldest on; all have `tag_of` them."""
    names = [f"{name}-{number:02}" for number in range(60)]
    for one in names:
        make_image(name=one, tags=[name])
    return names


@pytest.fixture(scope="session")
async def artifact_daemon(
    keystone: Keystone, s3: Seaweedfs, postgres_url: str, client_folder: Path
) -> AsyncGenerator[ArtifactDaemon]:
    """Images are kept in files, templates in S3."""
    bucket = Bucket(s3)
    await bucket.make()
    database = await databases.create(postgres_url)
    await migrations.upgrade(database, "diptych_artifacts.migrations")
    identity = by_keystone(keystone) | {
        "KEYSTONE_AUTHTOKEN__USERNAME": "glare",
        "KEYSTONE_AUTHTOKEN__SERVICE_TYPE": "artifact",
    }
    folder = client_folder / "artifacts"
    environ = artifacts_service.configuration(
        database,
        folder,
        DEFAULT__ENABLED_BACKENDS="fast:file, cheap:file, objects:s3",
        DEFAULT__WORKERS="1",
        **{"artifact_type:heat_templates__DEFAULT_STORE": "objects"},
        JOBS__WITH_WORKER="true",
        **bucket.options("objects"),
        **identity,
    )
    daemon = Daemon(environ, client_folder / "artifacts.log", service="artifacts")
    daemon.start()
    yield ArtifactDaemon(daemon.url, folder / "fast", bucket)
    assert daemon.stop() == 0
    await databases.drop(database)
    await bucket.remove()


@pytest.fixture(scope="session")
async def _real_glare(keystone: Keystone, client_folder: Path) -> AsyncGenerator[str]:
    from tests.compat import glare

    server = await glare.started(client_folder / "glare", keystone=keystone)
    yield server.url
    server.stop()


@pytest.fixture(scope="session", params=["diptych", pytest.param("glare", marks=pytest.mark.long)])
def artifact_service(request: pytest.FixtureRequest, keystone: Keystone) -> ArtifactService:
    """The service that the clients of artifacts are for: ours, and the real Glare."""
    if request.param == "glare":
        url = request.getfixturevalue("_real_glare")
    else:
        url = request.getfixturevalue("artifact_daemon").url
    region = f"region-{secrets.token_hex(4)}"
    make_region(keystone, region, {"identity": keystone.url, "artifact": url})
    return ArtifactService(request.param, url, region)


@pytest.fixture(scope="session")
def _artifact_clouds(
    keystone: Keystone, artifact_service: ArtifactService, client_folder: Path
) -> Path:
    """clouds.yaml of the users demo, other and admin."""

    def entry(user: str) -> dict[str, object]:
        auth = {
            "auth_url": keystone.url,
            "username": user,
            "password": PASSWORD,
            "project_name": USERS[user],
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
        return {"auth": auth, "region_name": artifact_service.region}

    path = client_folder / f"clouds-{artifact_service.name}.yaml"
    path.write_text(json.dumps({"clouds": {user: entry(user) for user in USERS}}))
    return path


@pytest.fixture(scope="session")
def our_artifact_process(
    clients_env: Path, client_folder: Path, _artifact_clouds: Path
) -> Generator[subprocess.Popen[str]]:
    """Has `openstack` with our plug-in."""
    python = clients_env / "python"
    plug_in = artifactclient.installed()
    with artifact_clouds.process(python, plug_in, client_folder, _artifact_clouds) as process:
        yield process


@pytest.fixture(scope="session")
def glareclient_process(
    glareclient_env: Path, client_folder: Path, _artifact_clouds: Path
) -> Generator[subprocess.Popen[str]]:
    """Has `openstack` with glareclient's plug-in, `glare` and the library."""
    python = glareclient_env / "python"
    with artifact_clouds.process(python, None, client_folder, _artifact_clouds) as process:
        yield process


@pytest.fixture(scope="session", params=["ours", "glareclient", "glare"])
def artifact_cloud(
    request: pytest.FixtureRequest, _artifact_clouds: Path
) -> Callable[[str], ArtifactCloud]:
    """`artifact_cloud("demo")`: a user of each of the clients for artifacts."""
    kind = request.param
    of_whom = "our_artifact_process" if kind == "ours" else "glareclient_process"
    process = request.getfixturevalue(of_whom)
    return lambda name: ArtifactCloud(name, process, kind)


@pytest.fixture
def demo_artifacts(artifact_cloud: Callable[[str], ArtifactCloud]) -> ArtifactCloud:
    """A member of project demo."""
    return artifact_cloud("demo")


@pytest.fixture
def admin_artifacts(artifact_cloud: Callable[[str], ArtifactCloud]) -> ArtifactCloud:
    """The administrator, in project admin."""
    return artifact_cloud("admin")


@pytest.fixture
def our_client(our_artifact_process: subprocess.Popen[str]) -> ArtifactCloud:
    """Our client, for a member of project demo."""
    return ArtifactCloud("demo", our_artifact_process, "ours")


@pytest.fixture
def our_client_of_admin(our_artifact_process: subprocess.Popen[str]) -> ArtifactCloud:
    """The same for the administrator."""
    return ArtifactCloud("admin", our_artifact_process, "ours")


@pytest.fixture
def glareclient(glareclient_process: subprocess.Popen[str]) -> ArtifactCloud:
    """glareclient's plug-in and library, for a member of project demo."""
    return ArtifactCloud("demo", glareclient_process, "glareclient")


@pytest.fixture
def glareclient_of_admin(glareclient_process: subprocess.Popen[str]) -> ArtifactCloud:
    """The same for the administrator."""
    return ArtifactCloud("admin", glareclient_process, "glareclient")


@pytest.fixture
def artifacts_http(
    keystone: Keystone, artifact_service: ArtifactService
) -> Generator[httpx.Client]:
    """Requests of the user demo without any client."""
    headers = {"X-Auth-Token": keystone.token("demo", "demo")}
    with httpx.Client(base_url=artifact_service.url, headers=headers, timeout=60) as client:
        yield client
