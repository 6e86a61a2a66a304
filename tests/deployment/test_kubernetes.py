"""The manifests for Kubernetes are valid, and say what is true of the services."""

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dev.places import CHECKOUT
from diptych_common import health, migrations, server
from diptych_common.metrics import Metrics
from diptych_images.imports.plugins.scratch import DEFAULT as WORK

from tests.deployment.programs import SERVICES, require_command, settings

FOLDER = CHECKOUT / "deploy" / "kubernetes"
SITE = "overlays/example"
Document = dict[str, Any]


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory, tools_env: Path) -> dict[str, Path]:
    """What kustomize makes of the example, and of each service without a site."""
    folder = tmp_path_factory.mktemp("kubernetes")
    shutil.copytree(FOLDER, folder / "in")
    for sample in (folder / "in").rglob("secrets.env.sample"):
        sample.rename(sample.with_suffix(""))
    made: dict[str, Path] = {}
    for name in ("base/images", "base/artifacts", SITE):
        file = folder / f"{name.replace('/', '-')}.yaml"
        with file.open("w") as output:
            command = [tools_env / "kubectl", "kustomize", folder / "in" / name]
            subprocess.run(command, stdout=output, check=True)
        made[name] = file
    return made


@pytest.fixture(scope="module")
def site(manifests: dict[str, Path]) -> list[Document]:
    return list(yaml.safe_load_all(manifests[SITE].read_text()))


def of_kind(site: list[Document], kind: str) -> dict[str, Document]:
    return {one["metadata"]["name"]: one for one in site if one["kind"] == kind}


def pods(site: list[Document]) -> Iterator[tuple[str, str, Document]]:
    """The service, the part it plays, and the pod, of whatever makes pods."""
    for kind in ("Deployment", "Job"):
        for one in of_kind(site, kind).values():
            labels = one["spec"]["template"]["metadata"]["labels"]
            service = labels["app.kubernetes.io/name"].removeprefix("diptych-")
            part = labels["app.kubernetes.io/component"]
            yield service, part, one["spec"]["template"]["spec"]


def environ(site: list[Document], container: Document) -> dict[str, str]:
    """The variables that the container gets."""
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        if "configMapRef" in source:
            found |= of_kind(site, "ConfigMap")[source["configMapRef"]["name"]]["data"]
        else:
            secret = of_kind(site, "Secret")[source["secretRef"]["name"]]["data"]
            found |= {name: base64.b64decode(value).decode() for name, value in secret.items()}
    return found | {one["name"]: one["value"] for one in container.get("env", [])}


def test_they_are_valid(manifests: dict[str, Path], tools_env: Path) -> None:
    command = [tools_env / "kubernetes-validate", "--strict", *manifests.values()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_service_has_its_own_of_everything(site: list[Document]) -> None:
    found = {(service, part) for service, part, _ in pods(site)}
    parts = ("api", "worker", "migration")
    assert found == {(service, part) for service in SERVICES for part in parts}
    for service in SERVICES:
        name = f"diptych-{service}"
        assert name in of_kind(site, "Service")
        assert {name, f"{name}-worker"} <= of_kind(site, "PodDisruptionBudget").keys()
        scaled = of_kind(site, "HorizontalPodAutoscaler")[name]["spec"]["scaleTargetRef"]
        assert scaled["name"] in of_kind(site, "Deployment")


def test_the_services_know_what_they_are_told(site: list[Document]) -> None:
    for service, part, pod in pods(site):
        for container in pod["containers"]:
            told = settings(service, environ(site, container))
            require_command(service, container["args"])
            ports = {one["name"]: one["containerPort"] for one in container.get("ports", [])}
            if part == "api":
                assert ports["api"] == told.default.bind_port
                assert ports["metrics"] == told.metrics.bind_port
            elif part == "worker":
                assert ports["metrics"] == told.metrics.worker_bind_port
    for service in SERVICES:
        (port,) = of_kind(site, "Service")[f"diptych-{service}"]["spec"]["ports"]
        known = SERVICES[service].model().default.bind_port
        assert (port["port"], port["targetPort"]) == (known, "api")


def test_probes_ask_what_is_answered(site: list[Document]) -> None:
    for service, part, pod in pods(site):
        if part == "api":
            (container,) = pod["containers"]
            asked = {
                name: container[f"{name}Probe"]["httpGet"]
                for name in ("startup", "liveness", "readiness")
            }
            assert asked == {
                "startup": {"path": health.LIVE, "port": "api"},
                "liveness": {"path": health.LIVE, "port": "api"},
                "readiness": {"path": health.READY, "port": "api"},
            }, service


def test_a_pod_has_the_time_that_its_transfers_have(site: list[Document]) -> None:
    for service, part, pod in pods(site):
        if part == "api":
            (container,) = pod["containers"]
            told = settings(service, environ(site, container))
            # It serves until its readiness is known to have gone.
            readiness = container["readinessProbe"]
            assert (
                told.default.drain_delay
                > readiness["periodSeconds"] * readiness["failureThreshold"]
            )
            lasting = told.default.drain_delay + told.default.graceful_timeout
            needed = lasting + server.CLOSING_S
            assert pod["terminationGracePeriodSeconds"] > needed


def writable(container: Document) -> set[str]:
    return {mount["mountPath"] for mount in container.get("volumeMounts", [])}


def test_pods_can_do_no_more_than_they_must(site: list[Document]) -> None:
    for service, part, pod in pods(site):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (service, part)


def test_what_is_written_can_be(site: list[Document]) -> None:
    written = {("images", "worker"): WORK, ("artifacts", "api"): "/tmp"}
    for service, part, pod in pods(site):
        if (service, part) in written:
            assert written[service, part] in writable(pod["containers"][0])


def test_scaling_looks_at_metrics_that_there_are(site: list[Document]) -> None:
    scaling = of_kind(site, "HorizontalPodAutoscaler")
    gauges = {one.name for one in Metrics().registry.collect() if one.type == "gauge"}
    named = {one["pods"]["metric"]["name"] for one in scaling["diptych-images"]["spec"]["metrics"]}
    assert named
    assert named <= gauges
    (cpu,) = scaling["diptych-artifacts"]["spec"]["metrics"]
    assert cpu["resource"]["name"] == "cpu"


@pytest.mark.parametrize(
    ("needed", "is_let_in"),
    [
        (migrations.UP_TO_DATE, True),
        (migrations.CONTRACT_NEEDED, True),
        (migrations.EXPANDED_FURTHER, True),
        (migrations.EXPAND_NEEDED, False),
        (1, False),
    ],
)
def test_pods_wait_for_the_schema(
    site: list[Document], tmp_path: Path, needed: int, is_let_in: bool
) -> None:
    for service, part, pod in pods(site):
        if part == "migration":
            continue
        # Stands in for `db check`, of which only the exit code counts.
        program = tmp_path / f"diptych-{service}"
        program.write_text(f"#!/bin/sh\n[ \"$*\" = 'db check' ] && exit {needed}\nexit 2\n")
        program.chmod(0o755)
        (waiting,) = pod["initContainers"]
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(waiting["command"], env=path, capture_output=True)
        assert (done.returncode == 0) is is_let_in, (service, part)
