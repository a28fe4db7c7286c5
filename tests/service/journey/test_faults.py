"""What goes wrong in a lab on a Monday morning: nothing is lost, and the notebook says what happened."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.person import Person, Tab, eventually
from tests.running import RunningHub


@pytest.fixture
async def ann(hub: RunningHub, request: pytest.FixtureRequest):
    name = "f-" + request.node.name.removeprefix("test_")[:18].replace("_", "-").strip("-")
    async with await Person.enrol(hub.url, hub.admin_token, name) as person:
        await person.start_server()
        yield person
        await person.broker_release()
        await person.stop_server()


@pytest.fixture
async def tab(ann: Person) -> Tab:
    tab = await ann.open("n.ipynb")
    await tab.run("import os\nx = [1, 2]\ny = x")
    return tab


async def worker_pid(tab: Tab) -> int:
    """The process that holds the worker: the kernel's ancestor that is a worker."""
    kernel = int(await tab.value("os.getpid()"))
    for process in psutil.Process(kernel).parents():
        if "gpusession.worker" in " ".join(process.cmdline()):
            return process.pid
    raise AssertionError("no worker above the kernel")


async def test_a_worker_killed_in_mid_cell_leaves_a_clear_error_and_the_last_saved_state(tab: Tab) -> None:
    await tab.flip("worker")
    pid = await worker_pid(tab)
    await tab.run("x.append(3)")
    running = await tab.submit("import time\ntime.sleep(120)")
    queued = await tab.submit("print('after')")
    await asyncio.sleep(1)
    os.kill(pid, signal.SIGKILL)
    cell = await tab.result(running)
    assert cell.status == "error"
    assert "GPU" in cell.text
    assert (await tab.result(queued)).status == "aborted"

    async def back() -> dict | None:
        status = await tab.status()
        return (
            status
            if status["placement"] == "server" and any(n["kind"] == "lost" for n in status["notices"])
            else None
        )

    status = await eventually(back, "the notebook to go on without the GPU", 150)
    assert await tab.value("(x, y is x)") == "([1, 2], True)"
    assert next(n for n in status["notices"] if n["kind"] == "lost")["message"]


async def test_an_exit_in_a_cell_on_the_gpu_restores_the_last_saved_state_there(tab: Tab) -> None:
    await tab.flip("worker")
    cell = await tab.run("os._exit(3)")
    assert cell.status == "error"

    async def alive() -> bool:
        return await tab.value("x") == "[1, 2]"

    await eventually(alive, "the kernel to come again with its variables", 60)


async def test_restart_stays_on_the_held_gpu_and_starts_empty(tab: Tab, ann: Person) -> None:
    await tab.flip("worker")
    await ann.api("POST", f"{ann.server_url}api/kernels/{tab.kernel}/restart")
    assert (await tab.run("x")).ename == "NameError"
    assert (await tab.status())["placement"] == "worker"
    assert "SIM-" in (await tab.run("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")).text


async def test_interrupt_reaches_a_cell_on_the_gpu(tab: Tab, ann: Person) -> None:
    await tab.flip("worker")
    running = await tab.submit("import time\ntime.sleep(100)")
    await asyncio.sleep(1)
    await ann.api("POST", f"{ann.server_url}api/kernels/{tab.kernel}/interrupt", expect=204)
    assert (await tab.result(running)).ename == "KeyboardInterrupt"
    assert await tab.value("x") == "[1, 2]"


async def test_two_tabs_flipping_at_once_end_in_one_place(tab: Tab, ann: Person) -> None:
    other = await Tab(ann, tab.kernel, tab.session, tab.path).connect()
    ann.tabs.append(other)
    body = {"placement": "worker", "left": "refuse"}
    url = f"kernels/{tab.kernel}/placement"
    await asyncio.gather(*(ann.server_api("PUT", url, json=body) for _ in range(2)))
    status = await tab.settled()
    assert status["placement"] == "worker"
    assert await other.value("(x, y is x)") == "([1, 2], True)"


async def test_ten_quick_flips_end_where_the_last_one_said(tab: Tab, ann: Person) -> None:
    for n in range(10):
        placement = "worker" if n % 2 == 0 else "server"
        async with ann.http.put(
            f"{ann.server_url}gpuhub/api/v1/kernels/{tab.kernel}/placement",
            headers=ann.headers,
            json={"placement": placement, "left": "refuse"},
        ) as answer:
            assert answer.status in (202, 409), await answer.text()

    async def settled_at_server() -> bool:
        status = await tab.settled()
        return status["placement"] == "server"

    await eventually(settled_at_server, "the last wish to come true")
    assert await tab.value("(x, y is x)") == "([1, 2], True)"


async def test_what_cannot_be_carried_needs_consent_and_is_listed(tab: Tab) -> None:
    await tab.run("numbers = (n for n in range(9)); next(numbers)")
    await tab.ask("worker")
    status = await tab.settled()
    assert (status["placement"], status["move"]["step"]) == ("server", "refused")
    left = [v for v in status["move"]["verdicts"] if v["verdict"] == "left"]
    assert [(v["name"], v["type"]) for v in left] == [("numbers", "generator")]
    assert left[0]["reason"]
    assert left[0]["hint"]
    assert await tab.value("next(numbers)") == "1"  # nothing was touched
    await tab.flip("worker", left="accept")
    assert (await tab.run("numbers")).ename == "NameError"
    assert await tab.value("(x, y is x)") == "([1, 2], True)"


async def test_a_stopped_server_offers_its_variables_at_the_next_start(hub: RunningHub) -> None:
    async with await Person.enrol(hub.url, hub.admin_token, "returning") as ann:
        await ann.start_server()
        tab = await ann.open("tomorrow.ipynb")
        await tab.run("import numpy as np\nfield = np.ones(1000)\nview = field[10:20]")
        await tab.flip("worker")
        await ann.stop_server()
        await ann.start_server()
        again = await ann.open("tomorrow.ipynb")
        snapshots = (await ann.server_api("GET", f"kernels/{again.kernel}/snapshots"))["snapshots"]
        assert snapshots[0]["reason"] in ("server-stop", "worker-stop")
        assert {v["name"] for v in snapshots[0]["verdicts"]} >= {"field", "view"}
        body = {"snapshot": snapshots[0]["id"]}
        await ann.server_api("POST", f"kernels/{again.kernel}/restore", json=body)
        assert await again.value("(np.shares_memory(field, view), view.sum().item())") == "(True, 10.0)"
        await ann.stop_server()


async def test_the_broker_killed_and_restarted_finds_leases_and_queue_again(
    hub: RunningHub, tab: Tab
) -> None:
    ann = tab.person
    await tab.flip("worker")
    before = await ann.lease()
    hub.kill_child("broker")

    async def same_lease() -> bool:
        try:
            lease = await ann.lease()
        except AssertionError:
            return False
        return bool(lease and lease["id"] == before["id"] and lease["state"] == "active")

    await eventually(same_lease, "the broker to come back", 60)
    assert await tab.value("(x, y is x)") == "([1, 2], True)"
    assert (await tab.status())["placement"] == "worker"


async def test_the_hub_killed_and_restarted_is_not_noticed_in_a_notebook(hub: RunningHub, tab: Tab) -> None:
    await tab.flip("worker")
    hub.kill_child("hub")
    assert await tab.value("(x, y is x)") == "([1, 2], True)"
    await asyncio.to_thread(hub.wait_until_ready)
    await tab.flip("server")
    assert await tab.value("(x, y is x)") == "([1, 2], True)"


async def test_no_process_of_a_lease_outlives_it(tab: Tab) -> None:
    await tab.flip("worker")
    pid = await worker_pid(tab)
    escaped = await tab.value(
        "__import__('subprocess').Popen('setsid nohup sleep 600 >/dev/null 2>&1 & echo $!', shell=True,"
        " stdout=-1, start_new_session=True, env={}).communicate()[0].decode().strip()"
    )
    await tab.person.broker_release()

    async def gone() -> bool:
        return not any(psutil.pid_exists(p) for p in (pid, int(escaped.strip("'"))))

    await eventually(gone, "the worker and what it had started to end", 30)


async def test_a_full_home_fails_the_save_and_the_kernel_goes_on(tab: Tab) -> None:
    """Tried with a file size limit on the kernel: the write fails as on a full volume."""
    await tab.run("import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))")
    await tab.run("import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nbig = bytes(5_000_000)")
    await tab.ask("worker", left="accept")
    status = await tab.settled()
    assert (status["placement"], status["move"]["step"]) == ("server", "failed")
    assert status["move"]["message"]
    assert await tab.value("(x, len(big))") == "([1, 2], 5000000)"


@pytest.mark.parametrize("flaw", ["flipped", "truncated", "other-python"])
async def test_a_damaged_saved_state_is_refused_with_its_reason(tab: Tab, flaw: str, hub: RunningHub) -> None:
    ann = tab.person
    info = await ann.server_api("POST", f"kernels/{tab.kernel}/snapshots")
    home = Path((await tab.value("os.path.expanduser('~')")).strip("'"))
    folder = next((home / ".local/share/gpuhub/snapshots").rglob(info["id"]))
    if flaw == "other-python":
        manifest = folder / "manifest.json"
        body = json.loads(manifest.read_text())
        assert body["python"].startswith("3.")
        manifest.write_text(json.dumps({**body, "python": "2.7.18"}))
    else:
        data = max(
            (p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"), key=os.path.getsize
        )
        content = bytearray(data.read_bytes())
        if flaw == "flipped":
            content[len(content) // 2] ^= 1
        else:
            content = content[: len(content) // 2]
        data.write_bytes(content)
    await tab.run("x.append('new')")
    body = {"snapshot": info["id"]}
    refusal = await ann.server_api("POST", f"kernels/{tab.kernel}/restore", json=body, expect=422)
    assert refusal["code"] == "snapshot-unusable"
    assert refusal["hint"]
    assert await tab.value("x") == "[1, 2, 'new']"  # never half restored
