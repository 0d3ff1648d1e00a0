import math
import random

import prometheus_client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from exporter import histogram as module
from exporter import stages
from exporter.histogram import Histogram

CLASSIC, OPEN = "", "application/openmetrics-text"
EDGES = (0.005, 0.5, 1.0, 2.5, 1e7)


def theirs(family, accept):
    """The family as prometheus-client writes it from what it collects."""
    registry = CollectorRegistry()
    registry.register(family)
    encode, _ = choose_encoder(accept)
    return encode(registry).decode().removesuffix("# EOF\n")


def ours(family, accept):
    return family.write(open_metrics=accept == OPEN)


@pytest.fixture(autouse=True)
def no_created_series():
    prometheus_client.disable_created_metrics()
    yield
    prometheus_client.enable_created_metrics()


@pytest.mark.parametrize("accept", [CLASSIC, OPEN], ids=["classic", "openmetrics"])
def test_it_writes_and_counts_exactly_what_prometheus_clients_own_does(accept, monkeypatch):
    """The same values into both; the texts are equal to the byte, exemplars included."""
    monkeypatch.setattr("time.time", lambda: 1795364973.123456)
    registry, rng = CollectorRegistry(), random.Random(7)
    labels = ("model", "backend")
    buckets = stages.TIME_BUCKETS
    peer = prometheus_client.Histogram(
        "a_seconds", "Time.", labels, buckets=buckets, registry=registry
    )
    own = Histogram("a_seconds", "Time.", labels, buckets)
    for number in range(2_000):
        told = rng.choice([("wav2lip", "omnirt"), ("mock", "local"), ('q"\\', "ü\n")])
        value = rng.choice([*buckets, 0.0, 100.0, rng.lognormvariate(0, 1)])
        exemplar = {"trace_id": f"{number:032x}"} if number % 3 else None
        peer.labels(*told).observe(value, exemplar)
        own.child(*told).observe(value, exemplar)
    encode, _ = choose_encoder(accept)
    assert ours(own, accept) == encode(registry).decode().removesuffix("# EOF\n")


@pytest.mark.parametrize("accept", [CLASSIC, OPEN], ids=["classic", "openmetrics"])
@pytest.mark.parametrize("count", [0, 1, 999_999, 1_000_000, 1_234_567, 10**9, 10**15 + 1])
def test_counts_of_any_size_are_written_alike(accept, count):
    family = Histogram("a_seconds", "Time.", (), EDGES)
    child = family.child()
    child._counts[1], child._sum = count, count * 0.3
    assert ours(family, accept) == theirs(family, accept)


@pytest.mark.parametrize("accept", [CLASSIC, OPEN], ids=["classic", "openmetrics"])
def test_a_family_without_values_is_written_alike(accept):
    family = Histogram("a_seconds", 'What "is"\nit \\ now.', ("model",), EDGES)
    assert ours(family, accept) == theirs(family, accept)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            st.floats(0, 1e9),
            st.none() | st.just({"trace_id": "a" * 32}),
        ),
        max_size=20,
    ),
    st.sampled_from([CLASSIC, OPEN]),
)
def test_any_labels_and_values_are_written_alike(told, accept):
    family = Histogram("a_seconds", "Time.", ("model",), EDGES)
    for label, value, exemplar in told:
        family.child(label).observe(value, exemplar)
    assert ours(family, accept) == theirs(family, accept)


def test_a_value_on_an_edge_is_in_the_bucket_that_ends_there():
    family = Histogram("a_seconds", "Time.", (), (1.0, 2.0))
    for value in (1.0, math.nextafter(1.0, 2.0), 2.0, 3.0):
        family.child().observe(value)
    [metric] = family.collect()
    found = {s.labels["le"]: s.value for s in metric.samples if s.name.endswith("_bucket")}
    assert found == {"1.0": 1, "2.0": 3, "+Inf": 4}


def test_wrong_labels_are_refused():
    with pytest.raises(ValueError, match="argument"):
        Histogram("a_seconds", "Time.", ("model",), EDGES).child("a", "b")


def test_it_says_which_numbers_go_writes_with_an_exponent():
    assert module._number(module._EXACT_BELOW - 1) == f"{module._EXACT_BELOW - 1}.0"
    assert "e+" in module._number(module._EXACT_BELOW)
