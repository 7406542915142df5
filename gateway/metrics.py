"""The registry that everything reports to: plain dictionaries on the hot path, Prometheus text when asked.

Incrementing costs a dictionary look-up; `prometheus_client` is only loaded to draw the page.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Labels = tuple[str, ...]

#: Seconds; from a fast embedding to a long completion.
SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
)

#: More different label sets than this are counted under "other": a client must not be able to fill our memory.
MAX_SERIES = 2000


class Counter:
    """Only goes up. `values` is keyed by label values in the order of `labels`."""

    kind = "counter"

    def __init__(self, name: str, doc: str, labels: Labels) -> None:
        self.name, self.doc, self.labels = name, doc, labels
        self.values: dict[Labels, int] = {}

    def add(self, labels: Labels, amount: int = 1) -> None:
        values = self.values
        if labels in values:
            values[labels] += amount
        elif len(values) < MAX_SERIES:
            values[labels] = amount
        else:
            other = ("other",) * len(self.labels)
            values[other] = values.get(other, 0) + amount


class Histogram:
    """Counts observations (seconds, unless said otherwise) in buckets."""

    kind = "histogram"

    def __init__(self, name: str, doc: str, labels: Labels, bounds: tuple[float, ...] = SECONDS) -> None:
        self.name, self.doc, self.labels, self.bounds = name, doc, labels, bounds
        self.values: dict[Labels, list[float]] = {}  # a count a bucket, one over the last bound, then the sum

    def observe(self, labels: Labels, value: float) -> None:
        row = self.values.get(labels)
        if row is None:
            if len(self.values) >= MAX_SERIES:
                labels = ("other",) * len(self.labels)
            row = self.values.setdefault(labels, [0.0] * (len(self.bounds) + 2))
        row[bisect_left(self.bounds, value)] += 1
        row[-1] += value


class Gauge:
    """A level, read when the page is drawn."""

    kind = "gauge"

    def __init__(self, name: str, doc: str, labels: Labels, read: Callable[[], Iterable[tuple[Labels, float]]]) -> None:
        self.name, self.doc, self.labels, self.read = name, doc, labels, read


One = TypeVar("One", Counter, Histogram)


class Metrics:
    """All counters, histograms and gauges by name; asking twice for one name gives the same object."""

    def __init__(self) -> None:
        self._all: dict[str, Counter | Histogram | Gauge] = {}

    def counter(self, name: str, doc: str, labels: Labels = ()) -> Counter:
        """`name` ends in _total, in base units."""
        return self._named(name, Counter, lambda: Counter(name, doc, labels))

    def histogram(self, name: str, doc: str, labels: Labels = (), bounds: tuple[float, ...] = SECONDS) -> Histogram:
        """`name` ends in the unit, such as _seconds."""
        return self._named(name, Histogram, lambda: Histogram(name, doc, labels, bounds))

    def gauge(
        self, name: str, doc: str, read: Callable[[], Iterable[tuple[Labels, float]]], labels: Labels = ()
    ) -> Gauge:
        """The newest `read` wins, so that a reload can replace it."""
        gauge = Gauge(name, doc, labels, read)
        self._all[name] = gauge
        return gauge

    def _named(self, name: str, kind: type[One], make: Callable[[], One]) -> One:
        found = self._all.get(name)
        if found is None:
            found = self._all[name] = made = make()
            return made
        if not isinstance(found, kind):
            raise TypeError(f"metric {name} exists already as a {type(found).__name__}")
        return found

    def collect(self) -> Iterator[Metric]:
        """prometheus_client's collector protocol."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for metric in list(self._all.values()):
            if isinstance(metric, Counter):
                family: Any = CounterMetricFamily(metric.name, metric.doc, labels=metric.labels)
                for labels, value in metric.values.items():
                    family.add_metric(labels, value)
            elif isinstance(metric, Gauge):
                family = GaugeMetricFamily(metric.name, metric.doc, labels=metric.labels)
                for labels, level in metric.read():
                    family.add_metric(labels, level)
            else:
                family = HistogramMetricFamily(metric.name, metric.doc, labels=metric.labels)
                for labels, row in metric.values.items():
                    family.add_metric(labels, _cumulative(metric.bounds, row), row[-1])
            yield family

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its content type: OpenMetrics where `accept` asks for it, else Prometheus text."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry()
        registry.register(self)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type


def _cumulative(bounds: tuple[float, ...], row: list[float]) -> list[tuple[str, float]]:
    total, buckets = 0.0, []
    for bound, count in zip([*map(str, bounds), "+Inf"], row, strict=False):
        total += count
        buckets.append((bound, total))
    return buckets
