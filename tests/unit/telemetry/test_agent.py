"""The agent keeps a minute, sends what fits, and bears a broker that is away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpuhub.telemetry.agent import KEPT, LOOK_SECONDS, Agent, AgentSettings, Door, Refused
from gpuhub.telemetry.base import ProcessSample, Sample
from gpuhub.telemetry.inventory import Gpu
from gpuhub.telemetry.looking import Seen
from gpuhub.telemetry.podresources import PodGpus
from gpuhub.telemetry.report import NodeReport
from gpuhub.telemetry.writing import BODY_BYTES, report_body
from gpulease.models import MAX_BODY_BYTES


def seen(at: float, use: float = 0.0, *, processes: int = 0, gpus: int = 1, **fields: Any) -> Seen:
    many = tuple(ProcessSample(pid, f"python-{pid}", pid) for pid in range(1, processes + 1))
    devices = tuple(Gpu(f"GPU-{n}", n, "NVIDIA H100", 80, simulated=False) for n in range(gpus))
    samples = tuple(Sample(gpu.id, 0.0, use, 10, 80, many) for gpu in devices)
    content: dict[str, Any] = {"pods": (), "uids": {}, "problem": None} | fields
    return Seen(at=at, gpus=devices, samples=samples, **content)


class EyesByHand:
    """Shows the number of the look as use."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.looks = clock, 0

    async def look(self) -> Seen:
        self.looks += 1
        return seen(self.clock(), min(100.0, self.looks))


class BrokerByHand:
    """Takes reports, or refuses them with what a test wants."""

    def __init__(self) -> None:
        self.trouble: Refused | None = None
        self.tries = 0
        self.taken: list[NodeReport] = []

    async def __call__(self, body: bytes) -> None:
        self.tries += 1
        if self.trouble is not None:
            raise self.trouble
        self.taken.append(NodeReport.model_validate_json(body))


class Place:
    def __init__(self) -> None:
        self.now = 0.0
        self.broker = BrokerByHand()
        self.agent = Agent(
            EyesByHand(lambda: self.now), self.broker, clock=lambda: self.now, jitter=lambda: 0.5
        )  # type: ignore[arg-type]

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await self.agent.turn()
            self.now += LOOK_SECONDS


@pytest.fixture
def place() -> Place:
    return Place()


async def test_each_look_is_sent_at_once(place: Place) -> None:
    await place.turns(3)
    assert [len(report.looks) for report in place.broker.taken] == [1, 1, 1]
    assert place.broker.taken[0].looks[0].age_seconds == 0
    assert len(place.agent.kept) == 0


async def test_what_a_broker_missed_is_sent_when_it_is_back_oldest_first(place: Place) -> None:
    place.broker.trouble = Refused("away")
    await place.turns(3)
    place.broker.trouble = None
    place.now += 60
    await place.turns(1)
    [report] = place.broker.taken
    assert [look.samples[0].utilisation_percent for look in report.looks] == [1, 2, 3, 4]
    assert [look.age_seconds for look in report.looks] == [75, 70, 65, 0]


async def test_a_broker_that_stays_away_is_asked_less_and_less_and_nothing_grows(place: Place) -> None:
    place.broker.trouble = Refused("away")
    await place.turns(3 * 720)
    assert len(place.agent.kept) == KEPT
    assert 3 * 3600 / 20 < place.broker.tries < 3 * 3600 / 12
    place.broker.trouble = None
    await place.turns(8)
    assert place.broker.taken[0].looks[-1].age_seconds == 0
    assert len(place.broker.taken) >= 2, "once it answers, every look is sent again"


async def test_a_report_that_was_refused_for_what_it_says_is_not_sent_again(place: Place) -> None:
    place.broker.trouble = Refused("status 409", final=True)
    await place.turns(1)
    place.broker.trouble = None
    place.now += 60
    await place.turns(1)
    [report] = place.broker.taken
    assert [look.samples[0].utilisation_percent for look in report.looks] == [2]


def test_a_report_always_fits_into_one_request() -> None:
    looks = [seen(float(n), processes=250, gpus=8) for n in range(KEPT)]
    body = report_body(looks, 60.0)
    assert len(body) <= BODY_BYTES < MAX_BODY_BYTES
    report = NodeReport.model_validate_json(body)
    assert len(report.looks) == 1
    assert report.looks[0].age_seconds == 49, "older looks go first"
    assert len(report.looks[0].samples) == 8
    kept = [process.memory_bytes for process in report.looks[0].samples[0].processes]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == 250, "then the smallest processes"
    many = [seen(float(n), gpus=8, processes=2) for n in range(KEPT)]
    assert len(NodeReport.model_validate_json(report_body(many, 60.0)).looks) == KEPT


def test_one_odd_answer_of_the_driver_costs_itself_only() -> None:
    look = seen(0.0, gpus=3)
    odd = (Sample("GPU-0", 0.0, 5.0, 2**64 - 1, 80), *look.samples[1:])
    pods = (PodGpus("users", "ann", ("GPU-1",)), PodGpus("USERS", "!", ("GPU-2",)))
    content = look.__dict__ | {"samples": odd, "pods": pods, "problem": "x" * 9999}
    report = NodeReport.model_validate_json(report_body([Seen(**content)], 0.0))
    assert [sample.device for sample in report.looks[0].samples] == ["GPU-1", "GPU-2"]
    assert [pod.pod for pod in report.allocations or ()] == ["ann"]


# --- the way to the broker -------------------------------------------------------------------------


class Answers(httpx.AsyncBaseTransport):
    """A server that answers one status and remembers what came."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.status == 0:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(self.status, json={"message": "no\x1b[2J"})


def door(folder: Path, answers: Answers) -> Door:
    (folder / "token").write_text("first\n")
    settings = AgentSettings("node-1", "http://broker/services/gpu", token_file=folder / "token")
    return Door(settings, transport=answers)


async def test_the_token_is_read_anew_each_time(tmp_path: Path) -> None:
    answers = Answers(204)
    way = door(tmp_path, answers)
    await way.push(b"{}")
    (tmp_path / "token").write_text("second")
    await way.push(b"{}")
    assert [request.headers["authorization"] for request in answers.requests] == [
        "Bearer first",
        "Bearer second",
    ]
    assert str(answers.requests[0].url) == "http://broker/services/gpu/api/v1/nodes/node-1/samples"


@pytest.mark.parametrize(
    ("status", "final"),
    [
        (0, False),
        (401, False),
        (403, False),
        (404, False),
        (503, False),
        (400, True),
        (409, True),
        (413, True),
    ],
)
async def test_a_refusal_says_why_and_whether_the_same_would_do_later(
    tmp_path: Path, status: int, final: bool
) -> None:
    with pytest.raises(Refused) as refusal:
        await door(tmp_path, Answers(status)).push(b"{}")
    assert refusal.value.final is final
    assert "\x1b" not in str(refusal.value)
    assert "first" not in str(refusal.value)


async def test_a_missing_token_is_said(tmp_path: Path) -> None:
    way = door(tmp_path, Answers(204))
    (tmp_path / "token").unlink()
    with pytest.raises(Refused, match="the token cannot be read"):
        await way.push(b"{}")


def test_the_environment_tells_the_agent_everything() -> None:
    said = {"GPUHUB_NODE": "node-1", "GPUHUB_BROKER_URL": "http://broker:8090/services/gpu/"}
    settings = AgentSettings.from_environment(said | {"GPUHUB_TOKEN_FILE": "/t"})
    assert (settings.node, settings.broker_url) == ("node-1", "http://broker:8090/services/gpu")
    assert settings.token_file == Path("/t")
    for missing in said:
        with pytest.raises(ValueError, match=missing):
            AgentSettings.from_environment({key: value for key, value in said.items() if key != missing})
    with pytest.raises(ValueError, match="http://"):
        AgentSettings.from_environment(said | {"GPUHUB_BROKER_URL": "file:///etc"})


def test_a_report_is_json_that_leaves_out_what_is_not_known() -> None:
    content = json.loads(report_body([seen(0.0, pods=None)], 0.0))
    assert "allocations" not in content
    assert "power_watts" not in content["looks"][0]["samples"][0]
