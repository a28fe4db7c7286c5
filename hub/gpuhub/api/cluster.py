"""The place that is a cluster: its API, the Lease by which one broker leads, and the agents' way in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator

from gpuhub.api.agents import Agents, TokenReviewGate
from gpuhub.api.places import Served
from gpuhub.backends.kubernetes.api import ClusterApi
from gpuhub.backends.kubernetes.backend import KubernetesBackend
from gpuhub.backends.kubernetes.leader import LeaseLeader
from gpuhub.backends.kubernetes.settings import KubernetesSettings
from gpuhub.telemetry.base import NoTelemetry
from gpuhub.telemetry.dcgm import DcgmTelemetry
from gpuhub.telemetry.pushed import PushedTelemetry

FIRST_LISTS_SECONDS = 20.0
"""How long the first lists of a cluster are waited for; afterwards the broker answers without them."""

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def open_cluster(settings: KubernetesSettings) -> AsyncIterator[KubernetesPlace]:
    """Open the cluster that the settings name. Raises `OSError`."""
    api = await ClusterApi.connect(settings.kubeconfig)
    try:
        yield KubernetesPlace(settings, api)
    finally:
        await api.close()


class KubernetesPlace:
    """The GPUs of a cluster."""

    def __init__(self, settings: KubernetesSettings, api: ClusterApi) -> None:
        self._settings = settings
        self.leadership = LeaseLeader(
            api,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=f"{os.uname().nodename}-{secrets.token_hex(4)}",
        )

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[Served]:
        settings = self._settings
        pushed = PushedTelemetry() if settings.telemetry == "agent" else None
        dcgm = _dcgm(settings)
        measured = pushed or dcgm or NoTelemetry()
        backend = KubernetesBackend(
            await ClusterApi.connect(settings.kubeconfig),
            settings,
            allocations=measured.allocations,
            leads=self.leadership.leads,
        )
        agents = None
        if pushed is not None:
            gate = TokenReviewGate(
                backend.review_token,
                service_account=settings.agent_username,
                audience=settings.agent_audience,
            )
            agents = Agents(gate, pushed)
        listening = asyncio.create_task(backend.run(), name="cluster")
        try:
            if not await backend.listen(seconds=FIRST_LISTS_SECONDS):
                log.warning("the cluster does not answer yet; going on without")
            yield Served(backend, measured, agents)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await backend.close()
            if dcgm is not None:
                await dcgm.close()


def _dcgm(settings: KubernetesSettings) -> DcgmTelemetry | None:
    if settings.telemetry != "dcgm" or settings.prometheus_url is None:
        return None
    return DcgmTelemetry(
        settings.prometheus_url,
        token_file=settings.prometheus_token_file,
        ca_file=settings.prometheus_ca_file,
    )
