"""Counters add up over workers, survive a worker, and read as Prometheus text."""

from __future__ import annotations

import mmap

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cosilo.gateway.metrics import BUCKETS, HELP, REGION, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(metrics.exposition())
        for s in family.samples
    }


def test_counters_add_up() -> None:
    m = Metrics()
    m.add("cosilo_requests_total", point="a", endpoint="chat", status="200")
    m.add("cosilo_requests_total", 2, point="a", endpoint="chat", status="200")
    m.add("cosilo_requests_total", point="b", endpoint="chat", status="200")
    found = samples(m)
    assert (
        found["cosilo_requests_total", (("endpoint", "chat"), ("point", "a"), ("status", "200"))]
        == 3
    )
    assert (
        found["cosilo_requests_total", (("endpoint", "chat"), ("point", "b"), ("status", "200"))]
        == 1
    )


def test_workers_are_summed_and_a_restarted_one_goes_on() -> None:
    memory = mmap.mmap(-1, 2 * REGION)
    one, two = Metrics(memory, 0), Metrics(memory, 1)
    one.add("cosilo_usd_total", 0.5, point="a")
    two.add("cosilo_usd_total", 0.25, point="a")
    two.set("cosilo_in_flight", 4)
    two.observe("cosilo_request_seconds", 0.02, point="a")
    again = Metrics(memory, 1)  # the second died; its successor has its place
    again.add("cosilo_usd_total", 1, point="a")
    for m in (one, again):
        found = samples(m)
        assert found["cosilo_usd_total", (("point", "a"),)] == 1.75
        assert found["cosilo_in_flight", ()] == 0  # what was in flight died with it
        assert found["cosilo_request_seconds_count", (("point", "a"),)] == 1


def test_histogram_buckets_are_cumulative() -> None:
    m = Metrics()
    values = [0.001, 0.005, 0.006, 3.0, 1000.0]
    for v in values:
        m.observe("cosilo_request_seconds", v, point='a,le=b"}\\')
    found = samples(m)
    where = ("point", 'a,le=b"}\\')
    for bound in BUCKETS:
        key = ("cosilo_request_seconds_bucket", (("le", f"{bound:g}"), where))
        assert found[key] == sum(v <= bound for v in values)
    assert found["cosilo_request_seconds_bucket", (("le", "+Inf"), where)] == 5
    assert found["cosilo_request_seconds_sum", (where,)] == pytest.approx(sum(values))


def test_every_family_is_described() -> None:
    families = {f.name for f in text_string_to_metric_families(Metrics().exposition())}
    assert families == {name.removesuffix("_total") for name in HELP}


def test_a_full_region_stops_counting_new_series_and_keeps_the_others() -> None:
    m = Metrics()
    m.add("cosilo_usd_total", point="first")
    for i in range(REGION // 40):
        m.add("cosilo_usd_total", point=f"p{i}")
    m.add("cosilo_usd_total", point="first")
    m.add("cosilo_usd_total", point="one more")
    totals = m.totals()
    assert totals['cosilo_usd_total{point="first"}'] == 2
    assert 'cosilo_usd_total{point="one more"}' not in totals
