"""What the service counts and times, in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import importlib.metadata
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import disable_created_metrics as leave_out_creation_times
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from indexer.errors import ParcelleError
from indexer.generations.manifest import Manifest

SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Variable that names the folder where worker processes put their counts together.

prometheus_client reads it when it is first imported.
"""

_REQUEST_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SEARCH_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

_LIVE_FILE: Final = re.compile(r"gauge_live[a-z]*_(\d+)\.db")

_log = logging.getLogger(__name__)


class Metrics:
    """Counts of one application, or of all workers together where they share a folder."""

    def __init__(self) -> None:
        # They would double the number of series; a process's start tells as much.
        leave_out_creation_times()  # type: ignore[no-untyped-call]
        self._folder = os.environ.get(SHARED_FOLDER)
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "parcelle_http_requests_total",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "parcelle_http_request_seconds",
            "Time from the request's headers to the end of the answer.",
            ["route"],
            buckets=_REQUEST_BUCKETS_S,
            registry=self._registry,
        )
        self._search_seconds = Histogram(
            "parcelle_search_seconds",
            "Time of a search for similar parcels, over HTTP or MCP, failed ones included.",
            buckets=_SEARCH_BUCKETS_S,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "parcelle_http_requests_in_flight",
            "Requests at work, those included that were given up at their time limit.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )

    def count_request(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered.

        Args:
            method: Of HTTP.
            route: The route's template, lest each parcel have series of its own.
            status: Of the answer.
            seconds: That it took.
        """
        self._requests.labels(method, route, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    def count_search(self, seconds: float) -> None:
        """Count a search for similar parcels.

        Args:
            seconds: That it took.
        """
        self._search_seconds.observe(seconds)

    def exposition(self, published: Callable[[], Iterable[Manifest]]) -> bytes:
        """All of it, as Prometheus reads it.

        Args:
            published: Gives the manifests of the generations that answer now. What is told of
                them is left out, and logged, while they cannot be had.
        """
        now = CollectorRegistry()
        now.register(_PublishedCollector(published))
        return generate_latest(self._counted()) + generate_latest(now)

    def _counted(self) -> CollectorRegistry:
        if self._folder is None:
            return self._registry
        _forget_dead_workers(Path(self._folder))
        together = CollectorRegistry()
        MultiProcessCollector(together, self._folder)  # type: ignore[no-untyped-call]
        return together


class _PublishedCollector(Collector):
    """The version and the generations that answer, found out when they are asked for."""

    def __init__(self, published: Callable[[], Iterable[Manifest]]) -> None:
        self._published = published

    def collect(self) -> Iterator[Metric]:
        """One series for each embedding space."""
        version = importlib.metadata.version("parcelle")
        yield InfoMetricFamily("parcelle_build", "The service's version.", {"version": version})
        rows = GaugeMetricFamily("parcelle_index_rows", "Vectors of the index.", labels=["space"])
        number = GaugeMetricFamily(
            "parcelle_generation", "The generation that answers.", labels=["space"]
        )
        space = InfoMetricFamily("parcelle_space", "The embedding space.")
        try:
            manifests = list(self._published())
        except (ParcelleError, SQLAlchemyError) as error:
            _log.warning("Metrics without those of the index: %s", error)
            return
        for manifest in manifests:
            short = manifest.space
            rows.add_metric([short["id"]], manifest.rows)
            number.add_metric([short["id"]], manifest.generation)
            space.add_metric(
                (),
                {
                    "space": short["id"],
                    "encoder": short["encoder"],
                    "weights": short["weights"],
                },
            )
        yield from (rows, number, space)

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering it must not ask the database."""
        return iter(())


def _forget_dead_workers(folder: Path) -> None:
    """Stop counting what was in flight in processes that are gone; their counters stay."""
    for file in folder.glob("gauge_live*.db"):
        found = _LIVE_FILE.fullmatch(file.name)
        if found is not None and not _is_alive(int(found[1])):
            mark_process_dead(int(found[1]), str(folder))  # type: ignore[no-untyped-call]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # A stranger got the number of a worker that is gone.
        return False
    return True
