"""deploy/keystone/register.py against a Keystone that knows nothing of the services."""

import os
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from dev import ports
from dev.keystone import PASSWORD, Keystone
from dev.places import CHECKOUT

from tests.images.service import client, configuration, opened

SCRIPT = CHECKOUT / "deploy" / "keystone" / "register.py"
URL = "https://images.example.org"
Register = Callable[..., tuple[int, list[str]]]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Generator[Keystone]:
    """A Keystone as its bootstrap leaves it, without the role that older ones lack."""
    root = tmp_path_factory.mktemp("registration") / "keystone"
    server = Keystone(root, port=ports.any_free(), endpoints={})
    server.start()
    token = server.token("admin", "admin")
    names = {"image", "artifact", "glance", "glare", "service"}
    try:
        for kind in ("service", "user", "project", "role"):
            for one in server.call("GET", f"/{kind}s", token=token)[f"{kind}s"]:
                if one.get("type", one["name"]) in names:
                    path = f"/{kind}s/{one['id']}"
                    if kind == "role":
                        changeable = {"role": {"options": {"immutable": False}}}
                        server.call("PATCH", path, changeable, token=token)
                    server.call("DELETE", path, token=token)
        yield server
    finally:
        server.stop()


@pytest.fixture
def register(bare: Keystone, clients_env: Path) -> Register:
    """Run the script as an administrator; its exit code and what it printed."""

    def run(*arguments: str, **more: str) -> tuple[int, list[str]]:
        administrator = {
            "OS_AUTH_URL": bare.url,
            "OS_USERNAME": "admin",
            "OS_PASSWORD": PASSWORD,
            "OS_PROJECT_NAME": "admin",
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
        }
        done = subprocess.run(
            [clients_env / "python", SCRIPT, *arguments],
            env={"PATH": os.environ["PATH"], **administrator, **more},
            capture_output=True,
            text=True,
        )
        return done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()]

    return run


async def test_images(
    bare: Keystone, register: Register, images_database: str, tmp_path: Path
) -> None:
    password = {"DIPTYCH_IMAGES__KEYSTONE_AUTHTOKEN__PASSWORD": "as-in-images.env"}
    arguments = ("images", "--url", URL, "--region", "North")
    code, planned = register(*arguments, "--dry-run", **password)
    assert code == 0, planned
    code, said = register(*arguments, **password)
    assert code == 0, said
    assert planned == [f"would have {line}" for line in said]
    assert said == [
        "created role service",
        "created project service",
        "created user glance",
        "granted role service on project service",
        "created service glance of type image",
        "created region North",
        f"created endpoint public {URL} in North",
        f"created endpoint internal {URL} in North",
        f"created endpoint admin {URL} in North",
        "granted role reader on the system",
        "created limit image_size_total of -1 in North",
        "created limit image_stage_total of -1 in North",
        "created limit image_count_total of -1 in North",
        "created limit image_count_uploading of -1 in North",
    ]
    # Its password is not needed again, and stays what it is.
    assert register(*arguments) == (0, ["nothing to change"])

    inside = "http://images.internal"
    code, said = register(*arguments, "--internal-url", inside, "--limit", "image_count_total=1")
    assert (code, said) == (
        0,
        [
            f"updated endpoint internal {inside} in North, which was {URL}",
            "updated limit image_count_total to 1, which was -1",
        ],
    )
    catalog = _catalog(bare)
    assert catalog["image"] == {"public": URL, "internal": inside, "admin": URL}
    assert "artifact" not in catalog

    # What it made is enough for the service to validate tokens and to read limits.
    environ = configuration(
        images_database,
        tmp_path,
        PASTE_DEPLOY__FLAVOR="keystone",
        KEYSTONE_AUTHTOKEN__AUTH_URL=bare.url,
        KEYSTONE_AUTHTOKEN__USERNAME="glance",
        KEYSTONE_AUTHTOKEN__PASSWORD="as-in-images.env",
        KEYSTONE_AUTHTOKEN__PROJECT_NAME="service",
        KEYSTONE_AUTHTOKEN__USER_DOMAIN_NAME="Default",
        KEYSTONE_AUTHTOKEN__PROJECT_DOMAIN_NAME="Default",
        DEFAULT__USE_KEYSTONE_LIMITS="true",
        OSLO_LIMIT__ENDPOINT_REGION_NAME="North",
    )
    async with opened(environ) as app, client(app) as api:
        asking = {"X-Auth-Token": bare.token("demo", "demo")}
        made = [await api.post("/v2/images", json={}, headers=asking) for _ in range(2)]
        assert [one.status_code for one in made] == [201, 413], made[1].text
        strange = await api.get("/v2/images", headers={"X-Auth-Token": "no token"})
        assert strange.status_code == 401


def test_artifacts(bare: Keystone, register: Register) -> None:
    arguments = ("artifacts", "--url", "https://artifacts.example.org", "--region", "North")
    code, said = register(*arguments)
    assert code == 1
    assert "DIPTYCH_ARTIFACTS__KEYSTONE_AUTHTOKEN__PASSWORD" in said[-1]
    code, said = register(*arguments, DIPTYCH_ARTIFACTS__KEYSTONE_AUTHTOKEN__PASSWORD="secret")
    assert code == 0, said
    assert "created user glare" in said
    assert not [line for line in said if "limit" in line or "system" in line]
    assert set(_catalog(bare)["artifact"].values()) == {"https://artifacts.example.org"}

    # What is there twice is left to people.
    (service,) = bare.call("GET", "/services?type=artifact")["services"]
    second = {"service_id": service["id"], "interface": "public", "region_id": "North"}
    bare.call("POST", "/endpoints", {"endpoint": {**second, "url": "https://second"}})
    code, said = register(*arguments)
    assert code == 1
    assert "There are 2 of kind endpoint" in said[-1]


def _catalog(keystone: Keystone) -> dict[str, dict[str, str]]:
    """Addresses by type and interface, as a user is told them."""
    token = keystone.token("demo", "demo")
    catalog: list[dict[str, Any]] = keystone.call("GET", "/auth/catalog", token=token)["catalog"]
    return {
        one["type"]: {
            place["interface"]: place["url"]
            for place in one["endpoints"]
            if place["region"] == "North"
        }
        for one in catalog
    }
