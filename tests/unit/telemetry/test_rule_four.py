"""Rule 4 with what agents push: only what an agent says makes a GPU idle; what it leaves out never does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpuhub.telemetry.pushed import SETTLED_SECONDS, PushedTelemetry
from gpuhub.telemetry.report import NodeReport
from gpulease.models import Lease
from gpulease.states import EndReason, LeaseState
from tests.fakes import WorkersThatStart
from tests.unit.broker.conftest import Place

GPU = "SIMULATED-0"


class PushedPlace(Place):
    """A broker whose only telemetry is what a test pushes for the GPU's node."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, WorkersThatStart())
        self.pushed = PushedTelemetry(
            clock=lambda: self.clock.now().timestamp(), stopwatch=self.clock.monotonic
        )
        self.gpus = self.pushed  # type: ignore[assignment] # the sampler's source

    async def later_with_agent(
        self, seconds: float, use: float = 0.0, pids: tuple[int, ...] = (), **fields: Any
    ) -> None:
        """Time passes while the agent says every five seconds what it sees."""
        for _ in range(int(seconds / 5)):
            processes = [{"pid": pid, "name": "python", "memory_bytes": 7} for pid in pids]
            sample = {"device": GPU, "utilisation_percent": use, "memory_bytes": 7, "processes": processes}
            content = {
                "devices": [{"id": GPU, "index": 0, "name": "simulated GPU 0", "memory_bytes": 80}],
                "looks": [{"age_seconds": 0.1, "samples": [sample]}],
            }
            self.pushed.take("node-1", NodeReport.model_validate(content | fields))
            await self.later(5)

    async def warned(self, lease: Lease) -> bool:
        return (await self.see(lease)).warning is not None


@pytest.fixture
async def place(tmp_path: Path) -> Any:
    made = PushedPlace(tmp_path)
    await made.open()
    yield made
    await made.kill()


async def test_a_gpu_of_which_no_agent_ever_spoke_is_nobodys_to_take(place: PushedPlace) -> None:
    lease = await place.active()
    await place.later(3 * 3600, step=60)
    seen = await place.see(lease)
    assert (seen.state, seen.warning, seen.idle_seconds) == (LeaseState.ACTIVE, None, None)


async def test_a_gpu_that_its_agent_calls_silent_is_taken_in_the_end(place: PushedPlace) -> None:
    lease = await place.active()
    await place.later_with_agent(620)
    assert await place.warned(lease)
    await place.later_with_agent(310)
    assert (await place.see(lease)).reason is EndReason.IDLE


@pytest.mark.parametrize(
    "silence",
    [
        pytest.param(None, id="the agent is gone"),
        pytest.param({"looks": []}, id="it sees no GPU"),
        pytest.param({"looks": [], "devices": [], "problem": "No NVIDIA driver answers."}, id="no driver"),
        pytest.param({"looks": [{"age_seconds": 60, "samples": []}]}, id="it sends old looks only"),
    ],
)
async def test_an_agent_that_falls_silent_withdraws_the_warning(
    place: PushedPlace, silence: dict[str, Any] | None
) -> None:
    lease = await place.active()
    await place.later_with_agent(620)
    assert await place.warned(lease)
    if silence is None:
        await place.later(20)
    else:
        await place.later_with_agent(20, **silence)
    assert not await place.warned(lease)
    for _ in range(20):
        await (place.later(300, step=30) if silence is None else place.later_with_agent(60, **silence))
    assert (await place.see(lease)).state is LeaseState.ACTIVE
    await place.later_with_agent(590)
    assert not await place.warned(lease), "silence is counted anew after the gap"
    await place.later_with_agent(30)
    assert await place.warned(lease)


async def test_use_and_a_new_process_count_as_in_process(place: PushedPlace) -> None:
    lease = await place.active()
    await place.later_with_agent(500, pids=(7,))
    await place.later_with_agent(5, use=0.4, pids=(7,))
    await place.later_with_agent(500, pids=(7,))
    assert not await place.warned(lease)
    await place.later_with_agent(5, pids=(7, 8))
    await place.later_with_agent(500, pids=(7, 8))
    assert not await place.warned(lease)
    await place.later_with_agent(120, pids=(7, 8))
    assert await place.warned(lease)


async def test_another_nodes_agent_cannot_keep_or_take_a_gpu(place: PushedPlace) -> None:
    lease = await place.active()
    await place.later_with_agent(SETTLED_SECONDS + 5, use=50)
    lie = {
        "devices": [{"id": GPU, "index": 0, "name": "x", "memory_bytes": 1}],
        "looks": [
            {"age_seconds": 0, "samples": [{"device": GPU, "utilisation_percent": 99, "memory_bytes": 0}]}
        ],
    }
    for _ in range(130):
        with pytest.raises(ValueError, match="another node"):
            place.pushed.take("node-2", NodeReport.model_validate(lie))
        await place.later_with_agent(5)
    assert await place.warned(lease)
