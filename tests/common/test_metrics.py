import threading
import urllib.request

import pytest
from dev import ports
from diptych_common.metrics import Metrics


def test_calls_of_a_store_are_told_apart_by_how_they_ended():
    metrics = Metrics()
    metrics.store_called("fast", "read", 0.02, None)
    metrics.store_called("fast", "read", 0.03, TimeoutError("no answer"))
    called = threading.Thread(target=metrics.store_called, args=("fast", "read", 40.0, None))
    called.start()
    called.join()

    def sample(name: str, outcome: str, **labels: str) -> float | None:
        labels = {"store": "fast", "operation": "read", "outcome": outcome, **labels}
        return metrics.registry.get_sample_value(f"diptych_store_call_seconds_{name}", labels)

    assert sample("count", "ok") == 2
    assert sample("sum", "ok") == pytest.approx(40.02)
    assert sample("bucket", "ok", le="0.025") == 1
    assert sample("count", "TimeoutError") == 1


def test_jobs_are_told_apart_by_kind_and_outcome():
    metrics = Metrics()
    metrics.job_started("import")
    metrics.job_started("import")
    metrics.job_ended("import", "failed", 90.0)
    value = metrics.registry.get_sample_value
    assert value("diptych_jobs_running", {"kind": "import"}) == 1
    failed = {"kind": "import", "outcome": "failed"}
    assert value("diptych_job_seconds_sum", failed) == pytest.approx(90)
    assert value("diptych_job_seconds_count", failed) == 1


def test_a_process_of_its_own_may_answer_prometheus():
    metrics = Metrics()
    metrics.store_called("fast", "read", 0.02, None)
    port = ports.any_free()
    with (
        metrics.listening("127.0.0.1", port),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        assert b'diptych_store_call_seconds_count{operation="read"' in answer.read()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")


def test_a_process_without_a_port_answers_nobody():
    threads = threading.active_count()
    with Metrics().listening("127.0.0.1", None):
        assert threading.active_count() == threads
