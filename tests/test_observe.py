"""The alert rules and the dashboard ask for what the services tell, and fire when they should."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dev.places import CHECKOUT
from diptych_common.metrics import Metrics
from diptych_images.cache.reading import CacheMetrics

FOLDER = CHECKOUT / "deploy" / "observe"
RULES = FOLDER / "alerts.yaml"
# Prometheus and Grafana add or fill in these.
ADDED = {"job", "instance", "le"}


def metrics() -> dict[str, set[str]]:
    """The names of all series, with their labels."""
    told = Metrics()
    CacheMetrics(told)
    found: dict[str, set[str]] = {"up": set()}
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    collectors: Any = told.registry._collector_to_names
    for collector in collectors:
        for suffix in suffixes.get(collector._type, [""]):
            found[collector._name + suffix] = {*collector._labelnames}
    return found


def alerts() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def panels() -> Iterator[tuple[str, str]]:
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


EXPRESSIONS = [
    *((name, rule["expr"]) for name, rule in alerts().items()),
    *panels(),
]


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_what_is_asked_for_is_told(name: str, expression: str) -> None:
    told = metrics()
    asked = set(re.findall(r"\b(?:diptych_\w+|up)\b", expression))
    assert asked
    assert asked <= told.keys()
    labels = set[str]().union(*(told[one] for one in asked)) | ADDED
    selected = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression)
    grouped = re.findall(r"by \(([\w, ]+)\)", expression)
    used = {*selected, *(word for names in grouped for word in re.findall(r"\w+", names))}
    assert used <= labels


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    shown = " ".join(expression for _, expression in EXPRESSIONS)
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in metrics()}
    assert {name for name in families if name not in shown} == {
        # The bytes beside it tell more.
        "diptych_image_cache_requests_total",
    }


def test_the_page_tells_of_every_metric_and_every_alert() -> None:
    page = (CHECKOUT / "docs" / "operators" / "observe.md").read_text()
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in metrics()} - {"up"}
    assert {name for name in families if f"`{name}`" not in page} == set()
    assert {name for name in alerts() if f"| {name} |" not in page} == set()


@pytest.fixture(scope="module")
def promtool(debian: Callable[[str, str], str]) -> Callable[..., str]:
    program = debian("prometheus", "promtool")

    def run(*arguments: str | Path, text: str | None = None) -> str:
        done = subprocess.run(
            [program, *arguments], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_prometheus_reads_the_rules_and_the_panels(
    promtool: Callable[..., str], tmp_path: Path
) -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)
    recorded = [
        {
            "record": f"panel:{number}",
            "expr": expression.replace("$__rate_interval", "5m").replace("$job", "x"),
        }
        for number, (_, expression) in enumerate(panels())
    ]
    as_rules = tmp_path / "panels.yaml"
    as_rules.write_text(json.dumps({"groups": [{"name": "panels", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in promtool("check", "rules", as_rules)


def test_prometheus_has_nothing_to_say_about_the_metrics(promtool: Callable[..., str]) -> None:
    told = Metrics()
    told.requests.labels("GET", "/v2/images", "2xx").observe(1)
    assert promtool("check", "metrics", text=told.render().decode()) == ""


# What makes each alert fire within twenty minutes: series, with their values minute by minute.
IMAGES = 'job="diptych-images", instance="a"'
REQUESTS = "diptych_http_request_seconds_count"
CALLS = "diptych_store_call_seconds_count"
RUNS = "diptych_job_seconds_count"
FIRING = {
    "DiptychDown": {f"up{{{IMAGES}}}": "0x20"},
    "DiptychErrors": {
        f'{REQUESTS}{{{IMAGES}, status="2xx"}}': "0+900x20",
        f'{REQUESTS}{{{IMAGES}, status="5xx"}}': "0+100x20",
    },
    "DiptychSlow": {
        f'diptych_http_request_seconds_bucket{{{IMAGES}, method="GET", route="/v2/images",'
        f' le="{edge}"}}': f"0+{number}x20"
        for edge, number in {"1": 90, "2.5": 100, "+Inf": 100}.items()
    },
    "DiptychUploadsStuck": {f"diptych_oldest_overdue_attempt_seconds{{{IMAGES}}}": "0+60x20"},
    "DiptychQueueOld": {f"diptych_oldest_overdue_job_seconds{{{IMAGES}}}": "0+60x20"},
    "DiptychImportsFail": {
        f'{RUNS}{{{IMAGES}, kind="import", outcome="succeeded"}}': "0+3x20",
        f'{RUNS}{{{IMAGES}, kind="import", outcome="failed"}}': "0+1x20",
    },
    "DiptychJobsFail": {f'{RUNS}{{{IMAGES}, kind="scrub", outcome="failed"}}': "0+1x20"},
    "DiptychStoreErrors": {
        f'{CALLS}{{{IMAGES}, store="s3", outcome="ok"}}': "0+90x20",
        f'{CALLS}{{{IMAGES}, store="s3", outcome="Unreachable"}}': "0+10x20",
    },
    "DiptychStoreFull": {f'{CALLS}{{{IMAGES}, store="s3", outcome="Full"}}': "0+0x9 1x10"},
    "DiptychEventsWait": {f"diptych_oldest_event_seconds{{{IMAGES}}}": "0+60x20"},
    "DiptychKeystoneAway": {f'diptych_token_lookups_total{{{IMAGES}, outcome="error"}}': "0+1x20"},
}
# A busy day without trouble.
CALM = {
    f"up{{{IMAGES}}}": "1x20",
    f'{REQUESTS}{{{IMAGES}, status="2xx"}}': "0+9000x20",
    f'{REQUESTS}{{{IMAGES}, status="4xx"}}': "0+900x20",
    f'{REQUESTS}{{{IMAGES}, status="5xx"}}': "0x10 1x10",
    f"diptych_oldest_overdue_attempt_seconds{{{IMAGES}}}": "60x20",
    f"diptych_oldest_overdue_job_seconds{{{IMAGES}}}": "20x20",
    f'{RUNS}{{{IMAGES}, kind="import", outcome="succeeded"}}': "0+30x20",
    f'{RUNS}{{{IMAGES}, kind="import", outcome="failed"}}': "0x10 1x10",
    f'{CALLS}{{{IMAGES}, store="s3", outcome="ok"}}': "0+90x20",
    f'{CALLS}{{{IMAGES}, store="s3", outcome="NotFound"}}': "0+10x20",
    f"diptych_oldest_event_seconds{{{IMAGES}}}": "2x20",
    f'diptych_token_lookups_total{{{IMAGES}, outcome="hit"}}': "0+1000x20",
    **{
        f'diptych_http_request_seconds_bucket{{{IMAGES}, method="GET", route="{route}",'
        f' le="{edge}"}}': f"0+{number}x20"
        for route, edges in {
            "/v2/images": {"0.1": 1000, "+Inf": 1000},
            # A download takes as long as it takes.
            "/v2/images/{image_id}/file": {"0.1": 0, "+Inf": 1000},
        }.items()
        for edge, number in edges.items()
    },
}


def test_each_alert_fires_for_its_cause_and_none_without(
    promtool: Callable[..., str], tmp_path: Path
) -> None:
    rules = alerts()
    assert FIRING.keys() == rules.keys()

    firing = "ALERTS{alertstate='firing'"

    def case(series: dict[str, str], expected: set[str]) -> dict[str, Any]:
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f"count by (alertname) ({firing}, alertname='{name}'}})",
                    "eval_time": "18m",
                    "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}]
                    if name in expected
                    else [],
                }
                for name in rules
            ],
        }

    tests = [case(CALM, set()), *(case(series, {name}) for name, series in FIRING.items())]
    file = tmp_path / "alerts.test.yaml"
    file.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests})
    )
    assert "SUCCESS" in promtool("test", "rules", file)
