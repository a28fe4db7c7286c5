"""One look at everything that a node's agent is asked for, whatever answers and whatever does not.

Driver and kubelet are asked at the same time, each in one thread: one that hangs costs its own answer,
never the other's, and no second question queues up behind it. What failed is said in plain sentences.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from gpuhub.telemetry import cgroups, podresources
from gpuhub.telemetry.base import ProcessSample, Sample
from gpuhub.telemetry.inventory import Gpu
from gpuhub.telemetry.nvml import Nvml
from gpuhub.telemetry.podresources import KubeletAway, PodGpus
from gpuhub.telemetry.sharing import samples_of_shares, shared_devices

ANSWER_SECONDS = 4.0
LOST_SECONDS = 600.0
"""How long a GPU that does not answer is spoken of: parts of one that is divided anew never come back."""
T = TypeVar("T")
PARTS = (
    "The driver does not tell how busy parts of divided GPUs (MIG) are: one that a process is on is never "
    "called idle, only one that nobody is on. NVIDIA's exporter tells it (telemetry: dcgm)."
)
SIMULATED = "simulated"
"""A GPU that does not exist has this word in its name, whoever plays it."""


@dataclass(frozen=True)
class Seen:
    """What one look showed."""

    at: float
    """Of the steady clock."""
    gpus: tuple[Gpu, ...]
    samples: tuple[Sample, ...]
    pods: tuple[PodGpus, ...] | None
    """None: the kubelet did not say."""
    uids: dict[tuple[str, str], str]
    problem: str | None


class OneAtATime(Generic[T]):
    """Asks something that blocks, in a thread. While it hangs, nobody asks again."""

    def __init__(self, ask: Callable[[], T], answer_seconds: float) -> None:
        self._ask, self._answer_seconds = ask, answer_seconds
        self._asking: asyncio.Future[T] | None = None

    async def answer(self) -> T:
        """Return the answer. Raises `TimeoutError` where there is none in time, and what ``ask`` raises."""
        if self._asking is not None and self._asking.done():
            # It came too late to be an answer about now.
            self._asking.cancelled() or self._asking.exception()
            self._asking = None
        if self._asking is None:
            self._asking = asyncio.ensure_future(asyncio.to_thread(self._ask))
        done, _ = await asyncio.wait({self._asking}, timeout=self._answer_seconds)
        if not done:
            raise TimeoutError
        asked, self._asking = self._asking, None
        return asked.result()


class Eyes:
    """Looks at a node. ``pods_of`` asks the kubelet; ``pod_uids`` and ``pod_of`` know pods by uid."""

    def __init__(
        self,
        nvml: Nvml,
        *,
        pods_of: Callable[[], tuple[PodGpus, ...]] = podresources.gpus_by_pod,
        pod_of: Callable[[int], str | None] = cgroups.pod_of,
        pod_uids: Callable[[], dict[tuple[str, str], str]] = cgroups.pod_uids,
        clock: Callable[[], float] = time.monotonic,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._nvml, self._clock = nvml, clock
        self._pod_of, self._pod_uids = pod_of, pod_uids
        self._shared: frozenset[str] = frozenset()
        self._answered: dict[str, float] = {}
        """When each GPU was last seen."""
        self._driver = OneAtATime(self._ask_driver, answer_seconds)
        self._kubelet = OneAtATime(pods_of, answer_seconds)

    async def look(self) -> Seen:
        """Look once. Never raises."""
        at = self._clock()
        (gpus, samples, trouble), (pods, away) = await asyncio.gather(self._see_gpus(), self._see_pods())
        uids: dict[tuple[str, str], str] = {}
        if pods is not None:
            self._shared = shared_devices(pods)
            uids = self._pod_uids() if self._shared else {}
            samples = (*samples, *samples_of_shares(samples, pods, uids))
        said = [sentence for sentence in (*trouble, away) if sentence]
        return Seen(at, gpus, samples, pods, uids, " ".join(said) or None)

    async def _see_gpus(self) -> tuple[tuple[Gpu, ...], tuple[Sample, ...], list[str]]:
        try:
            gpus, samples = await self._driver.answer()
        except TimeoutError:
            return (), (), ["The NVIDIA driver does not answer in time."]
        except Exception as error:  # noqa: BLE001 - an agent that looks on is worth more than one that stops
            return (), (), [f"The NVIDIA driver cannot be asked ({type(error).__name__})."]
        trouble = [self._nvml.problem] if self._nvml.problem else []
        answering = {gpu.id for gpu in gpus}
        now = self._clock()
        self._answered |= dict.fromkeys(answering, now)
        self._answered = {id_: at for id_, at in self._answered.items() if now - at < LOST_SECONDS}
        if not trouble:
            trouble += _lost(self._answered.keys() - answering)
            trouble += _unmeasured(answering - {sample.device_id for sample in samples}, answering)
        return gpus, samples, trouble

    async def _see_pods(self) -> tuple[tuple[PodGpus, ...] | None, str | None]:
        try:
            return await self._kubelet.answer(), None
        except KubeletAway as error:
            return None, str(error)
        except TimeoutError:
            return None, "The kubelet does not answer in time."
        except Exception as error:  # noqa: BLE001 - as above
            return None, f"The kubelet cannot be asked ({type(error).__name__})."

    def _ask_driver(self) -> tuple[tuple[Gpu, ...], tuple[Sample, ...]]:
        gpus = tuple(replace(gpu, simulated=SIMULATED in gpu.name.lower()) for gpu in self._nvml.inventory())
        samples = self._nvml.sample(0.0, by_process=self._shared) if gpus else ()
        return gpus, tuple(replace(sample, processes=self._with_pods(sample.processes)) for sample in samples)

    def _with_pods(self, processes: Sequence[ProcessSample]) -> tuple[ProcessSample, ...]:
        return tuple(replace(process, pod_uid=self._pod_of(process.pid)) for process in processes)


def pod_resources(socket: Path) -> Callable[[], tuple[PodGpus, ...]]:
    """Return what asks the kubelet behind ``socket``."""
    return lambda: podresources.gpus_by_pod(socket)


def _lost(ids: set[str]) -> list[str]:
    if not ids:
        return []
    return [f"GPUs that were there before do not answer: {', '.join(sorted(ids)[:4])}."]


def _unmeasured(ids: set[str], all_ids: set[str]) -> list[str]:
    """Say of what the driver does not tell enough. Of parts always: with each lease it changes for which."""
    found = []
    if any(_is_part(one) for one in all_ids):
        found.append(PARTS)
    whole_ones = sorted(one for one in ids if not _is_part(one))
    if whole_ones:
        found.append(
            f"The driver does not tell how busy they are: {', '.join(whole_ones[:4])}; they are never called "
            "idle."
        )
    return found


def _is_part(device_id: str) -> bool:
    return device_id.startswith("MIG-")
