"""What agents say is remembered for as long as it is true, and counts for their own nodes only."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gpuhub.telemetry.base import Device, Sample
from gpuhub.telemetry.pushed import (
    ALIVE_SECONDS,
    MAX_DEVICES_EVER,
    SETTLED_SECONDS,
    ForeignDevice,
    PushedTelemetry,
)
from gpuhub.telemetry.report import NodeReport


class Place:
    """A `PushedTelemetry` with clocks that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.telemetry = PushedTelemetry(clock=lambda: 1.7e9 + self.now, stopwatch=lambda: self.now)

    def push(self, *samples: dict[str, Any], node: str = "one", age: float = 0.0, **fields: Any) -> None:
        ids = {str(one["device"]).partition("::")[0]: None for one in samples}
        content = {
            "devices": [device(name) for name in ids],
            "looks": [{"age_seconds": age, "samples": list(samples)}],
            **fields,
        }
        self.telemetry.take(node, NodeReport.model_validate(content))

    def settle(self, name: str = "GPU-0", node: str = "one") -> None:
        """Let a node name a device alone for so long that it is its own."""
        for _ in range(int(SETTLED_SECONDS / 5) + 1):
            self.push(sample(name), node=node)
            self.now += 5

    async def samples(self) -> dict[str, Sample]:
        return {sample.device_id: sample for sample in await self.telemetry.sample()}

    async def use(self) -> dict[str, float]:
        return {name: sample.utilisation_percent for name, sample in (await self.samples()).items()}


def device(id_: str, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "index": 0, "name": "NVIDIA H100", "memory_bytes": 80, **fields}


def sample(name: str = "GPU-0", use: float = 0.0, **fields: Any) -> dict[str, Any]:
    return {"device": name, "utilisation_percent": use, "memory_bytes": 20, **fields}


@pytest.fixture
def place() -> Place:
    return Place()


async def test_a_look_is_told_once_with_all_that_is_known(place: Place) -> None:
    process = {"pid": 7, "name": "python", "memory_bytes": 20, "pod_uid": "a-1"}
    process |= {"utilisation_percent": 30}
    place.push(sample(use=37, power_watts=120, processes=[process]), age=1.5)
    [seen] = (await place.samples()).values()
    assert (seen.utilisation_percent, seen.memory_bytes, seen.memory_total_bytes) == (37, 20, 80)
    assert (seen.power_watts, seen.simulated, seen.at) == (120, False, 1.7e9 + 998.5)
    assert [(one.pid, one.name, one.pod_uid, one.utilisation_percent) for one in seen.processes] == [
        (7, "python", "a-1", 30)
    ]
    assert await place.use() == {}, "silence is counted by looks: none is told twice"


async def test_a_simulated_gpu_says_so(place: Place) -> None:
    name = "NVIDIA H100 (simulated)"
    pods = [{"namespace": "users", "pod": "gpu-1", "devices": ["GPU-0"]}]
    place.push(sample(), devices=[device("GPU-0", name=name, simulated=True)], allocations=pods)
    assert (await place.samples())["GPU-0"].simulated
    assert place.telemetry.allocations("one", "users", "gpu-1") == (
        Device("GPU-0", 0, name, 80, simulated=True),
    )


async def test_use_between_two_looks_of_the_sampler_is_never_lost(place: Place) -> None:
    place.push(sample(use=0.5))
    place.push(sample(use=0))
    place.push(sample(use=0))
    assert await place.use() == {"GPU-0": 1.0}
    place.push(sample(use=90))
    place.push(sample(use=30))
    assert await place.use() == {"GPU-0": 60}
    place.push(sample(use=0))
    assert await place.use() == {"GPU-0": 0}


async def test_what_is_old_says_nothing(place: Place) -> None:
    place.push(sample(), age=16)
    assert await place.use() == {}
    place.push(sample())
    place.now += 16
    assert await place.use() == {}
    place.push(sample(use=5))
    assert await place.use() == {"GPU-0": 5}


def pods(**devices: list[str]) -> list[dict[str, Any]]:
    return [{"namespace": "users", "pod": pod, "devices": ids} for pod, ids in devices.items()]


def test_a_pods_devices_are_known_while_its_nodes_agent_says_so(place: Place) -> None:
    ask = place.telemetry.allocations
    assert ask("one", "users", "ann") is None
    place.push(sample("GPU-0"), sample("GPU-1"), allocations=pods(ann=["GPU-1"], bob=["GPU-0::3"]))
    assert [one.id for one in ask("one", "users", "ann") or ()] == ["GPU-1"]
    assert [one.id for one in ask("one", "users", "bob") or ()] == ["GPU-0::3"]
    assert ask("one", "users", "cyd") == (), "known, and none"
    assert ask("two", "users", "ann") is None, "another node's agent knows nothing of it"
    place.push(sample("GPU-0"), allocations=None)
    assert [one.id for one in ask("one", "users", "ann") or ()] == ["GPU-1"], "a pod keeps what it has"
    assert ask("one", "users", "cyd") is None, "a kubelet that does not answer says nothing of a new one"
    place.push(sample("GPU-0"), allocations=pods(ann=["GPU-1"]))
    assert [one.id for one in ask("one", "users", "ann") or ()] == ["GPU-1"], "lost, but still the pod's"
    place.now += 16
    assert ask("one", "users", "ann") is None


def test_a_device_that_the_driver_never_named_is_not_known(place: Place) -> None:
    place.push(sample("GPU-0"), allocations=pods(ann=["GPU-9"]))
    assert place.telemetry.allocations("one", "users", "ann") is None


@pytest.mark.parametrize(
    "lie",
    [
        {"devices": [device("GPU-0")], "looks": []},
        {"devices": [device("GPU-7")], "looks": [{"age_seconds": 0, "samples": [sample("GPU-0")]}]},
        {"devices": [device("GPU-7")], "looks": [{"age_seconds": 0, "samples": [sample("GPU-0::1")]}]},
        {"devices": [device("GPU-7")], "allocations": pods(eve=["GPU-0"])},
    ],
)
async def test_a_node_that_names_another_ones_device_is_refused_whole(
    place: Place, lie: dict[str, Any]
) -> None:
    place.settle()
    await place.use()
    place.push(sample(use=50))
    with pytest.raises(ForeignDevice, match="GPU-0 belongs to another node"):
        place.telemetry.take("two", NodeReport.model_validate(lie))
    assert await place.use() == {"GPU-0": 50}
    assert place.telemetry.allocations("two", "users", "eve") is None


async def test_a_node_that_is_gone_has_lost_its_devices(place: Place) -> None:
    place.settle()
    place.now += ALIVE_SECONDS - 6
    with pytest.raises(ForeignDevice):
        place.push(sample(), node="two")
    place.now += 7
    place.settle(node="two")
    with pytest.raises(ForeignDevice):
        place.push(sample(use=99), node="one")
    await place.use()
    place.push(sample(use=3), node="two")
    assert await place.use() == {"GPU-0": 3}


@pytest.mark.parametrize("first", ["the liar", "the true node"])
async def test_of_a_device_that_two_nodes_name_from_the_start_nothing_is_known(
    place: Place, first: str
) -> None:
    """The broker has just started, and a liar may be the first to speak."""
    order = ["two", "one"] if first == "the liar" else ["one", "two"]
    for _ in range(40):
        for node in order:
            place.push(sample(use=0 if node == "two" else 80), node=node, allocations=pods(ann=["GPU-0"]))
        assert await place.use() == {} or place.now < 1006
        place.now += 5
    for node in order:
        assert place.telemetry.allocations(node, "users", "ann") is None


async def test_what_else_a_node_says_counts_while_one_of_its_devices_is_disputed(place: Place) -> None:
    place.push(sample(), node="two")
    place.push(sample(use=50), sample("GPU-1", use=30), allocations=pods(ann=["GPU-1"]))
    assert await place.use() == {"GPU-1": 30}
    assert place.telemetry.allocations("one", "users", "ann") is not None


@pytest.mark.parametrize("way", ["it falls silent", "it names it no more"])
async def test_a_liar_that_gives_up_leaves_the_device_to_its_node(place: Place, way: str) -> None:
    place.push(sample(), node="two")
    for _ in range(int(ALIVE_SECONDS / 5)):
        place.push(sample(use=50))
        assert await place.use() == {}
        if way == "it names it no more":
            place.telemetry.take("two", NodeReport.model_validate({}))
        place.now += 5
    place.now += 1
    place.push(sample(use=50))
    assert await place.use() == {"GPU-0": 50}
    place.settle()
    with pytest.raises(ForeignDevice):
        place.push(sample(), node="two")


async def test_a_dispute_is_told_to_the_operator_once_with_both_names(place: Place) -> None:
    report = NodeReport.model_validate({"devices": [device("GPU-0")]})
    assert place.telemetry.take("one", report) is None
    said = place.telemetry.take("two", report)
    assert said == "Several nodes name the same GPU, so nothing is known of it: GPU-0 (one, two)."
    assert place.telemetry.take("two", report) is None
    assert place.telemetry.take("one", report) == said


def test_a_node_cannot_name_devices_without_end(place: Place) -> None:
    for number in range(MAX_DEVICES_EVER // 100):
        place.push(*(sample(f"GPU-{number}-{n}") for n in range(100)))
    with pytest.raises(ForeignDevice, match="no more than"):
        place.push(*(sample(f"GPU-more-{n}") for n in range(100)))


def test_a_problem_is_news_once_and_again_when_it_comes_back(place: Place) -> None:
    trouble = NodeReport.model_validate({"problem": "No driver.\x1b[2J"})
    well = NodeReport.model_validate({})
    assert place.telemetry.take("one", trouble) == "No driver.\N{REPLACEMENT CHARACTER}[2J"
    assert place.telemetry.take("one", trouble) is None
    assert place.telemetry.take("one", well) is None
    assert place.telemetry.take("one", trouble) is not None


PROCESS = {"pid": 1, "name": "x", "memory_bytes": 0}


@pytest.mark.parametrize(
    "content",
    [
        {"devices": [device("GPU-0"), device("GPU-0")]},
        {"devices": [device("GPU 0")]},
        {"devices": [device("../GPU")]},
        {"devices": [device("G" * 129)]},
        {"devices": [device(f"GPU-{n}") for n in range(129)]},
        {"devices": [device("GPU-0", memory_bytes=-1)]},
        {"devices": [device("GPU-0", memory_bytes=2**60)]},
        {"looks": [{"age_seconds": -1, "samples": []}]},
        {"looks": [{"age_seconds": 1e9, "samples": []}]},
        {"looks": [{"age_seconds": "NaN", "samples": []}]},
        {"looks": [{"age_seconds": 0, "samples": []}] * 17},
        {"looks": [{"age_seconds": 1, "samples": []}, {"age_seconds": 2, "samples": []}]},
        {"looks": [{"age_seconds": 1, "samples": [sample(), sample()]}]},
        {"looks": [{"age_seconds": 1, "samples": [sample(use=101)]}]},
        {"looks": [{"age_seconds": 1, "samples": [sample(use=float("nan"))]}]},
        {"looks": [{"age_seconds": 1, "samples": [sample(processes=[PROCESS] * 257)]}]},
        {"looks": [{"age_seconds": 1, "samples": [sample(processes=[PROCESS | {"pid": 0}])]}]},
        {"looks": [{"age_seconds": 1, "samples": [sample(processes=[PROCESS | {"pod_uid": "a/b"}])]}]},
        {"allocations": [{"namespace": "Users", "pod": "ann", "devices": []}]},
        {"allocations": [{"namespace": "users", "pod": "ann", "devices": []}] * 2},
    ],
)
def test_what_is_out_of_bounds_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NodeReport.model_validate(content)


def test_a_newer_agent_may_say_more() -> None:
    report = NodeReport.model_validate({"devices": [device("GPU-0", temperature=60)], "colour": "violet"})
    assert report.devices[0].id == "GPU-0"
