"""Telemetry of GPUs from NVIDIA's dcgm-exporter, asked from the Prometheus that scrapes it.

For clusters that have both already. Needs the metrics ``DCGM_FI_DEV_FB_USED``, ``…_FB_FREE`` and
``DCGM_FI_DEV_GPU_UTIL``, for parts of divided GPUs (MIG) ``DCGM_FI_PROF_GR_ENGINE_ACTIVE``, and the labels of
pods (``DCGM_EXPORTER_KUBERNETES=true``). Promises: each look of the exporter at a GPU is told once, with its
own time; what is older than `FRESH_SECONDS` says nothing. So GPUs are called idle only where both look every
5 s: Prometheus (``scrape_interval``) and the exporter (``--collect-interval 5000``; it answers every scrape
with its last look, which ``DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION`` gives away). Their defaults are 30 s and
more: then nobody is reclaimed, and the log says why. Prometheus is the operator's, and believed.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gpuhub.telemetry.base import REPLICA_MARK, Device, Sample
from gpuhub.telemetry.looking import SIMULATED
from gpuhub.telemetry.report import MAX_NAME, clean

UTIL, ENGINE = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
USED, FREE, RESERVED = "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_FB_RESERVED"
POWER, ENERGY = "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
VALUES = f'{{__name__=~"{"|".join((UTIL, ENGINE, USED, FREE, RESERVED, POWER, ENERGY))}",UUID!=""}}'
SCRAPED = f'timestamp({USED}{{UUID!=""}})'

FRESH_SECONDS = 15.0
SLOW_SECONDS = 7.5
"""Looks that are further apart leave gaps in which a GPU may have been used."""
SLOW_LOOKS = 3
"""In a row, of one GPU, before it is said: a single scrape may fail."""
KNOWN_SECONDS = 120.0
"""How long a pod's GPU stays known without a scrape: it does not change while the pod lives."""
ASK_SECONDS = 5.0
ANSWER_SECONDS = 4.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MIB = 1024**2

log = logging.getLogger(__name__)


class PrometheusAway(Exception):
    """Prometheus does not answer, or not so that it can be used. The message is for the log."""


@dataclass
class _Gpu:
    """All series of one GPU, part or share."""

    device: Device
    pod: tuple[str, str] | None
    part: bool
    values: dict[str, float] = field(default_factory=dict)
    age_seconds: float | None = None
    """Of its last scrape, by Prometheus' own clock."""


@dataclass(frozen=True)
class _Told:
    """The last look at a GPU that was told."""

    at: float
    energy: float | None
    slow: int = 0
    """How many in a row came too late."""
    apart: float = 0.0
    """Seconds from the look before it."""


class DcgmTelemetry:
    """The telemetry port, and who has which GPU, by what Prometheus knows."""

    def __init__(
        self,
        url: str,
        *,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            timeout=ANSWER_SECONDS,
            trust_env=False,
            verify=True if ca_file is None else ssl.create_default_context(cafile=str(ca_file)),
            transport=transport,
        )
        self._token_file = token_file
        self._clock, self._stopwatch = clock, stopwatch
        self._asked: float | None = None
        self._told: dict[str, _Told] = {}
        self._gpus: dict[str, _Gpu] = {}
        self._heard: float | None = None
        self._trouble: str | None = None

    async def close(self) -> None:
        await self._http.aclose()

    async def sample(self) -> Sequence[Sample]:
        """Return one sample for each GPU that was scraped since the last call."""
        now = self._stopwatch()
        if self._asked is not None and now - self._asked < ASK_SECONDS:
            return ()
        self._asked = now
        try:
            self._gpus = read_gpus(await self._ask(VALUES), await self._ask(SCRAPED))
        except PrometheusAway as error:
            self._say(str(error))
            return ()
        self._heard = now
        found = self._new_samples(self._clock())
        self._say(self._slow() if self._gpus else "Prometheus answers, but knows no GPU of dcgm-exporter.")
        return found

    def _slow(self) -> str | None:
        """Say that looks come too seldom, and how far apart they are."""
        slow = [told.apart for told in self._told.values() if told.slow >= SLOW_LOOKS]
        if not slow:
            return None
        return (
            f"looks at GPUs come {max(slow):.0f} s apart, and only what is looked at every 5 s can be called "
            "idle. Set Prometheus' scrape_interval for dcgm-exporter to 5s, and dcgm-exporter's "
            "--collect-interval to 5000"
        )

    def allocations(self, node: str, namespace: str, pod: str) -> tuple[Device, ...] | None:
        """Return the GPUs of a pod; None where none is known (a share without its label looks the same)."""
        if self._heard is None or self._stopwatch() - self._heard > KNOWN_SECONDS:
            return None
        found = tuple(
            gpu.device
            for gpu in self._gpus.values()
            if gpu.pod == (namespace, pod) and (gpu.age_seconds or 0.0) <= KNOWN_SECONDS
        )
        return found or None

    def _new_samples(self, now: float) -> list[Sample]:
        found = []
        for gpu in self._gpus.values():
            use = _utilisation(gpu)
            if use is None or gpu.age_seconds is None or gpu.age_seconds > FRESH_SECONDS:
                continue
            at, energy = now - gpu.age_seconds, gpu.values.get(ENERGY)
            told = self._told.get(gpu.device.id)
            if told is not None:
                if at - told.at < 0.5:
                    continue  # this scrape was told already; the two clocks agree to a fraction of a second
                if energy and energy == told.energy and at - told.at < KNOWN_SECONDS:
                    continue  # a GPU uses energy at every moment: the exporter has not looked again since
                slow = told.slow + 1 if at - told.at > SLOW_SECONDS else 0
                self._told[gpu.device.id] = _Told(at, energy, slow, at - told.at)
            else:
                self._told[gpu.device.id] = _Told(at, energy)
            found.append(
                Sample(
                    device_id=gpu.device.id,
                    at=at,
                    utilisation_percent=use,
                    memory_bytes=int(gpu.values.get(USED, 0.0) * MIB),
                    memory_total_bytes=gpu.device.memory_bytes,
                    simulated=gpu.device.simulated,
                    power_watts=gpu.values.get(POWER),
                )
            )
        for gone in self._told.keys() - self._gpus.keys():
            del self._told[gone]
        return found

    async def _ask(self, query: str) -> list[dict[str, Any]]:
        """Return the instant vector that ``query`` gives. Raises `PrometheusAway`."""
        headers = {}
        try:
            if self._token_file is not None:
                headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
            async with self._http.stream(
                "GET", "/api/v1/query", params={"query": query}, headers=headers
            ) as answer:
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        raise PrometheusAway("Prometheus' answer is too large.")
            if answer.status_code != 200:
                raise PrometheusAway(f"Prometheus answers with status {answer.status_code}.")
            said = json.loads(body)
            data = said["data"]
            if said["status"] != "success" or data["resultType"] != "vector":
                raise PrometheusAway("Prometheus' answer is no vector.")
            result: list[dict[str, Any]] = data["result"]
        except (OSError, httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise PrometheusAway(f"Prometheus does not answer: {error or type(error).__name__}") from error
        return result

    def _say(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble is None:
                log.info("Prometheus tells about GPUs")
            else:
                log.warning("nobody is reclaimed: %s", trouble)


def read_gpus(values: Sequence[Mapping[str, Any]], scraped: Sequence[Mapping[str, Any]]) -> dict[str, _Gpu]:
    """Return the GPUs in two instant vectors, by id. What cannot be read is passed over."""
    found: dict[str, _Gpu] = {}
    for labels, _, value in _series(values):
        key = device_id(labels)
        if key not in found:
            found[key] = _Gpu(_device(key, labels), _pod(labels), part=bool(labels.get("GPU_I_ID")))
        found[key].values[labels.get("__name__", "")] = value
    for labels, asked, at in _series(scraped):
        gpu = found.get(device_id(labels))
        if gpu is not None:
            gpu.age_seconds = max(0.0, asked - at)
    by_whole: dict[str, list[_Gpu]] = defaultdict(list)
    for key, gpu in found.items():
        memory = sum(gpu.values.get(name, 0.0) for name in (USED, FREE, RESERVED))
        was = gpu.device
        gpu.device = Device(was.id, was.index, was.name, int(memory * MIB), was.simulated)
        by_whole[key.partition(REPLICA_MARK)[0]].append(gpu)
    for shares in by_whole.values():
        if len(shares) > 1 and any(_utilisation(gpu) for gpu in shares):
            # Busy, but whose use it is DCGM does not tell: then it is nobody's to be judged by.
            for gpu in shares:
                gpu.values.pop(UTIL, None)
                gpu.values.pop(ENGINE, None)
    return found


def device_id(labels: Mapping[str, str]) -> str:
    """Return the name of a GPU, of its part (``GPU-…/gi7``), or of a share (``GPU-…::0``)."""
    uuid = labels.get("UUID", "")
    if labels.get("GPU_I_ID"):
        uuid = f"{uuid}/gi{labels['GPU_I_ID']}"
    return f"{uuid}{REPLICA_MARK}{labels['vgpu']}" if labels.get("vgpu") else uuid


def _device(key: str, labels: Mapping[str, str]) -> Device:
    name = " ".join(part for part in (labels.get("modelName"), labels.get("GPU_I_PROFILE")) if part)
    shown = str(clean(name or "NVIDIA GPU", MAX_NAME))
    index = labels.get("gpu", "")
    return Device(key, int(index) if index.isdigit() else 0, shown, 0, SIMULATED in shown.lower())


def _pod(labels: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (namespace, name) of the pod that has it.

    Where Prometheus keeps its own labels (``honorLabels: false``), ``pod`` is the exporter's pod, and what
    the exporter said is in ``exported_pod``.
    """
    for mark in ("exported_", ""):
        if labels.get(f"{mark}pod"):
            return labels.get(f"{mark}namespace", ""), labels[f"{mark}pod"]
    return None


def _utilisation(gpu: _Gpu) -> float | None:
    """Return per cent. Of a part only the engine's activity (0 to 1) says something."""
    engine = gpu.values.get(ENGINE)
    use = None if gpu.part else gpu.values.get(UTIL)
    if use is None and engine is not None:
        use = 100.0 * engine
    return None if use is None else min(100.0, max(0.0, use))


def _series(vector: Sequence[Mapping[str, Any]]) -> list[tuple[dict[str, str], float, float]]:
    """Return (labels, time of the answer, value) of each series that is whole."""
    found = []
    for one in vector:
        try:
            labels = {str(key): str(value) for key, value in one["metric"].items()}
            asked, value = float(one["value"][0]), float(one["value"][1])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            continue
        if labels.get("UUID") and value == value and abs(value) < 1e18:
            found.append((labels, asked, value))
    return found
