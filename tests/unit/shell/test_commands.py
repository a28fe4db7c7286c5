"""Each command against a server that answers as told: what it asks, what it prints, its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gpusession.shell.main import app
from tests.unit.shell.answering import AnswersAsTold, error, kernel, lease, pool, status
from tests.unit.shell.conftest import Gpu


def test_bare_gpu_is_gpu_status(gpu: Gpu, server: AnswersAsTold) -> None:
    server.answers["GET status"] = 200, status(lease=lease())
    assert gpu().stdout == gpu("status").stdout
    assert "simulated GPU" in gpu().stdout


@pytest.mark.parametrize("words", [(), ("status",), ("queue",), ("history",), ("restore",), ("keep",)])
def test_json_is_one_document(gpu: Gpu, server: AnswersAsTold, words: tuple[str, ...]) -> None:
    server.answers |= {
        "GET status": (200, status()),
        "GET history": (200, {"leases": [], "next": None}),
        "GET snapshots": (200, {"snapshots": []}),
        "POST lease/keep": (200, lease()),
    }
    ran = gpu(*words, "--json")
    assert ran.exit_code == 0
    json.loads(ran.stdout)


@pytest.mark.parametrize(
    ("code", "answer", "exit_code"),
    [
        (403, error("limit-reached", "You may use 1 GPU at once."), 3),
        (400, error("unknown-pool", "There is no pool x."), 2),
        (409, error("conflict", "This server already has a GPU."), 1),
        (503, error("unavailable", "The GPU service does not answer."), 5),
        (403, error("not-allowed", "No."), 1),
        (500, "nonsense", 5),
    ],
)
def test_a_refusal_says_its_reason_and_has_its_exit_code(
    gpu: Gpu, server: AnswersAsTold, code: int, answer: Any, exit_code: int
) -> None:
    server.answers |= {"GET status": (200, status()), "POST lease": (code, answer)}
    ran = gpu("on")
    assert ran.exit_code == exit_code
    assert ran.stdout == ""
    if isinstance(answer, dict):
        assert answer["message"] in ran.stderr
        assert answer["hint"] in ran.stderr
        told = gpu("on", "--json")
        assert told.exit_code == exit_code
        assert json.loads(told.stdout)["error"]["code"] == answer["code"]


def test_on_passes_pool_and_count(gpu: Gpu, server: AnswersAsTold) -> None:
    server.answers |= {"GET status": (200, status()), "POST lease": (202, lease())}
    ran = gpu("on", "--pool", "a100", "--gpus", "2")
    assert ran.exit_code == 0
    assert ("POST lease", {"pool": "a100", "gpus": 2}) in server.asked
    assert ran.stdout == "simulated GPU 8.0 GB is on.\n"


def test_on_waits_until_the_gpu_is_there(gpu: Gpu, server: AnswersAsTold) -> None:
    queued = lease(state="queued", devices=[], position=None)
    server.answers |= {"GET status": (200, status()), "POST lease": (202, queued)}
    server.events = [("status", status(lease=queued)), ("usage", {}), ("status", status(lease=lease()))]
    assert gpu("on").stdout == "simulated GPU 8.0 GB is on.\n"


def test_on_without_waiting_says_where_one_stands(gpu: Gpu, server: AnswersAsTold) -> None:
    position = {"place": 2, "message": "All GPUs are in use.", "estimated_start": None}
    queued = lease(state="queued", devices=[], position=position)
    server.answers |= {"GET status": (200, status()), "POST lease": (202, queued)}
    ran = gpu("on", "--no-wait")
    assert (ran.exit_code, ran.stdout) == (0, "2nd in line · All GPUs are in use\n")


def test_a_request_that_is_cancelled_elsewhere_ends_the_wait_with_4(gpu: Gpu, server: AnswersAsTold) -> None:
    queued = lease(state="queued", devices=[], position=None)
    gone = lease(state="ended", reason="cancelled", message="The request was cancelled.")
    server.answers |= {
        "GET status": (200, status()),
        "POST lease": (202, queued),
        "GET history": (200, {"leases": [gone], "next": None}),
    }
    server.events = [("status", status(lease=queued)), ("status", status())]
    ran = gpu("on")
    assert ran.exit_code == 4
    assert "The request was cancelled." in ran.stderr


def test_a_gpu_that_could_not_be_started_is_an_error(gpu: Gpu, server: AnswersAsTold) -> None:
    starting = lease(state="starting", devices=[])
    gone = lease(state="ended", reason="failed", message="The worker could not be started.")
    server.answers |= {
        "GET status": (200, status()),
        "POST lease": (202, starting),
        "GET history": (200, {"leases": [gone], "next": None}),
    }
    server.events = [("status", status())]
    ran = gpu("on")
    assert ran.exit_code == 1
    assert "could not be started" in ran.stderr


def test_off_without_a_gpu_is_fine(gpu: Gpu, server: AnswersAsTold) -> None:
    server.answers["GET status"] = 200, status()
    assert (gpu("off").exit_code, gpu("off").stdout) == (0, "There is no GPU to release.\n")


def test_off_says_what_may_go_on_and_until_when(gpu: Gpu, server: AnswersAsTold) -> None:
    busy = {"id": "c1", "command": "python train.py", "started_at": "2026-07-14T13:00:00+00:00"}
    ending = {"reason": "released", "deadline": "2026-07-14T14:00:00+00:00", "message": "Released."}
    server.answers |= {
        "GET status": (200, status(lease=lease(), commands=[busy])),
        "DELETE lease": (202, lease(state="ending", ending=ending)),
        "DELETE commands/c1": (204, None),
    }
    ran = gpu("off", "--no-wait")
    assert "python train.py may go on until" in ran.stderr
    assert ("DELETE commands/c1", None) not in server.asked
    gpu("off", "--no-wait", "--now")
    assert ("DELETE commands/c1", None) in server.asked


def test_a_notebook_is_found_by_path_by_name_and_by_file(
    gpu: Gpu, server: AnswersAsTold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = kernel(notebook="work/train.ipynb")
    moved = kernel(notebook="work/train.ipynb", placement="worker")
    server.answers |= {
        "GET status": (200, status(kernels=[there])),
        "GET kernels/k1": (200, there),
        "PUT kernels/k1/placement": (202, there),
    }
    server.events = [("status", status(kernels=[moved]))]
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("work/train.ipynb", "train.ipynb", "./train.ipynb"):
        ran = gpu("on", name)
        assert ran.exit_code == 0, ran.output
    assert gpu("on", "other.ipynb").exit_code == 1


def test_two_notebooks_of_one_name_must_be_told_apart(gpu: Gpu, server: AnswersAsTold) -> None:
    both = [kernel(notebook="a/x.ipynb"), kernel(id="k2", notebook="b/x.ipynb")]
    server.answers |= {"GET status": (200, status(kernels=both))}
    server.answers |= {"GET kernels/k1": (200, both[0]), "GET kernels/k2": (200, both[1])}
    ran = gpu("on", "x.ipynb")
    assert ran.exit_code == 2
    assert "a/x.ipynb, b/x.ipynb" in ran.stderr


def test_a_move_that_would_leave_something_names_it_and_the_way_on(gpu: Gpu, server: AnswersAsTold) -> None:
    left = {
        "name": "f",
        "type": "file",
        "verdict": "left",
        "reason": "An open file.",
        "hint": "Open it again.",
    }
    move = {
        "step": "refused",
        "message": "1 variable would stay behind.",
        "ended_at": "now",
        "verdicts": [left],
    }
    server.answers |= {
        "GET status": (200, status(kernels=[kernel()])),
        "GET kernels/k1": (200, kernel()),
        "PUT kernels/k1/placement": (202, kernel()),
    }
    server.events = [("status", status(kernels=[kernel(move=move)]))]
    ran = gpu("on", "train.ipynb")
    assert ran.exit_code == 1
    assert "f (file): An open file. Open it again." in ran.stdout
    assert "--move-anyway" in ran.stderr
    gpu("on", "train.ipynb", "--move-anyway")
    assert server.asked[-2] == (
        "PUT kernels/k1/placement",
        {"placement": "worker", "left": "accept", "pool": None},
    )


def test_history_turns_pages_until_there_is_enough(gpu: Gpu, server: AnswersAsTold) -> None:
    ended = [lease(id=f"{n:08x}", state="ended", reason="idle") for n in range(4)]
    server.answers |= {
        "GET history": (200, {"leases": ended[:2], "next": "00000001"}),
        "GET history?before=00000001": (200, {"leases": ended[2:], "next": None}),
    }
    assert len(json.loads(gpu("history", "-n", "3", "--json").stdout)["leases"]) == 3
    assert gpu("history", "-n", "10").stdout.count("idle") == 4


SNAPSHOT = {
    "id": "s1-abc",
    "notebook": "train.ipynb",
    "kernel": "old",
    "created_at": "2026-07-14T12:00:00+00:00",
    "reason": "release",
    "bytes": 1_200_000_000,
    "complete": True,
    "problem": None,
    "kept": 13,
    "left": 1,
}


def test_restore_lists_with_sizes_and_what_was_left(gpu: Gpu, server: AnswersAsTold) -> None:
    damaged = {**SNAPSHOT, "id": "s2", "complete": False, "problem": "Its end is missing."}
    server.answers["GET snapshots"] = 200, {"snapshots": [SNAPSHOT, damaged]}
    out = gpu("restore").stdout
    assert "1.2 GB" in out
    assert "13 kept, 1 left" in out
    assert "Its end is missing." in out


def test_restore_loads_named_variables_into_the_open_notebook(gpu: Gpu, server: AnswersAsTold) -> None:
    verdicts = [{"name": "x", "type": "int", "verdict": "kept"}]
    server.answers |= {
        "GET snapshots": (200, {"snapshots": [SNAPSHOT]}),
        "GET status": (200, status(kernels=[kernel()])),
        "GET kernels/k1": (200, kernel()),
        "POST kernels/k1/restore": (200, {"snapshot": "s1-abc", "verdicts": verdicts}),
    }
    ran = gpu("restore", "s1", "x")
    assert ran.exit_code == 0
    assert ran.stdout.startswith("train.ipynb: 1 variable restored, as of")
    assert server.asked[-1] == ("POST kernels/k1/restore", {"snapshot": "s1-abc", "names": ["x"]})


def test_queue_says_what_is_free_and_where_one_stands(gpu: Gpu, server: AnswersAsTold) -> None:
    position = {"place": 1, "message": "All GPUs are in use.", "estimated_start": None}
    queued = lease(state="queued", position=position, devices=[])
    server.answers["GET status"] = 200, status(lease=queued, pools=[pool(free=0, waiting=1)])
    out = gpu("queue").stdout
    assert "0 of 2 free, 1 waiting" in out
    assert "next in line" in out


def test_top_in_a_pipe_prints_each_change_and_ends_with_the_server(gpu: Gpu, server: AnswersAsTold) -> None:
    usage = {"utilisation_percent": 50, "memory_bytes": 1e9, "memory_total_bytes": 8e9}
    server.events = [("status", status(lease=lease())), ("usage", {"usage": usage, "idle_seconds": 0})]
    ran = gpu("top")
    assert "50 %" in ran.stdout
    assert ran.exit_code == 5
    lines = gpu("top", "--json").stdout.splitlines()
    assert json.loads(lines[1])["lease"]["usage"] == usage


def test_wrong_usage_is_2(gpu: Gpu) -> None:
    assert gpu("no-such-command").exit_code == 2
    assert gpu("on", "--gpus", "0").exit_code == 2
    assert gpu("run").exit_code == 2


@pytest.mark.parametrize(
    "command", ["status", "on", "off", "keep", "run", "shell", "top", "queue", "history", "restore"]
)
def test_every_command_explains_itself_with_an_example_and_has_json(command: str) -> None:
    ran = CliRunner().invoke(app, [command, "--help"])
    assert ran.exit_code == 0
    assert f"gpu {command}" in ran.stdout or command == "status"
    assert "--json" in ran.stdout


def test_the_help_lists_the_exit_codes() -> None:
    assert "125 nothing ran" in " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())


def test_outside_a_server_it_says_so() -> None:
    ran = CliRunner().invoke(app, ["status"], env={"GPUHUB_SOCKET": None})
    assert ran.exit_code == 5
    assert "does not belong to a gpuhub server" in ran.stderr
