"""Numbers for Prometheus. The only part that knows prometheus_client.

No person's name is a label: who uses what is the history's business, behind a sign-in.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gpuhub.core.lease import LeaseRecord
from gpuhub.core.snapshot import PoolNow

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """One broker's numbers, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._leases = Gauge(
            "gpuhub_leases_count",
            "Leases that have not ended.",
            ["pool", "state"],
            registry=self._registry,
        )
        self._gpus = Gauge(
            "gpuhub_gpus_count", "GPUs of a pool: total, free.", ["pool", "kind"], registry=self._registry
        )
        self._unmeasured = Gauge(
            "gpuhub_leases_unmeasured_count",
            "Active leases of whose use nothing is known now: they are never called idle.",
            ["pool"],
            registry=self._registry,
        )
        self._ended = Counter(
            "gpuhub_leases_ended", "Leases that have ended.", ["pool", "reason"], registry=self._registry
        )
        self._waited = Histogram(
            "gpuhub_wait_seconds",
            "From request to grant.",
            ["pool"],
            buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
            registry=self._registry,
        )
        self._started = Histogram(
            "gpuhub_start_seconds",
            "From grant to a worker that answers.",
            ["pool"],
            buckets=(0.5, 1, 2, 5, 10, 30, 60, 300),
            registry=self._registry,
        )
        self._pass = Histogram(
            "gpuhub_pass_seconds",
            "One look, decision and application of the reconciler.",
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10),
            registry=self._registry,
        )
        self._failures = Counter(
            "gpuhub_backend_failures", "Calls of the backend that failed.", ["call"], registry=self._registry
        )

    def changed(self, before: LeaseRecord, after: LeaseRecord) -> None:
        """Count what a change of a lease means."""
        if before.granted_at is None and after.granted_at is not None:
            waited = (after.granted_at - after.created_at).total_seconds()
            self._waited.labels(after.pool).observe(max(0.0, waited))
        if before.active_at is None and after.active_at is not None and after.granted_at is not None:
            started = (after.active_at - after.granted_at).total_seconds()
            self._started.labels(after.pool).observe(max(0.0, started))
        if after.gone and not before.gone:
            self._ended.labels(after.pool, after.reason.value if after.reason else "failed").inc()

    def passed(
        self,
        seconds: float,
        live: Iterable[LeaseRecord],
        pools: Iterable[PoolNow],
        unmeasured: Mapping[str, int],
    ) -> None:
        """Take the state after one pass of the reconciler. ``unmeasured``: leases by pool."""
        self._pass.observe(seconds)
        tally = Tally((record.pool, record.state.value) for record in live)
        self._leases.clear()
        for (pool, state), count in tally.items():
            self._leases.labels(pool, state).set(count)
        for now in pools:
            self._gpus.labels(now.name, "total").set(now.total)
            self._gpus.labels(now.name, "free").set(now.free_count)
            self._unmeasured.labels(now.name).set(unmeasured.get(now.name, 0))

    def failed(self, call: str) -> None:
        self._failures.labels(call).inc()

    def render(self) -> bytes:
        """Return the text format (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)
