"""Whatever stops the server: kernels are saved first, and the next start offers what was saved."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.service.session.desk import Desk, Notebook, eventually


async def offer(notebook: Notebook) -> dict[str, object]:
    async def offered() -> object:
        notices = (await notebook.status())["notices"]
        return next((one for one in notices if one["kind"] == "restore-offer"), None)

    return dict(await eventually(offered, "the offer"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_saves_and_the_next_start_offers_to_restore(desk: Desk, number: int) -> None:
    notebook = await desk.open()
    await notebook.run("x = {'a': [1, 2]}; y = x['a']")
    if number == signal.SIGINT:
        # Without a terminal nobody can be asked: Jupyter wants it twice.
        await desk.call("POST", "api/shutdown")
        assert desk.process is not None
        desk.process.wait(30)
    else:
        assert await desk.stop(number) in (0, -number)
    assert not desk.socket.exists()
    await desk.start()
    again = await desk.open()
    notice = await offer(again)
    assert "2 variables" in str(notice["message"])
    ran = await desk.gpu("restore", "a.ipynb")
    assert ran.code == 0, ran.err
    assert "2 variables restored" in ran.text
    assert await again.run("y.append(3); print(x)") == "{'a': [1, 2, 3]}\n"


async def test_a_kernel_on_the_gpu_is_saved_there_and_the_lease_ends(desk: Desk) -> None:
    notebook = await desk.open()
    await notebook.flip("worker")
    await notebook.run("x = 'from the GPU'")
    await desk.stop()
    (lease,) = desk.broker.leases.values()
    assert lease.state == "ended"
    assert lease.reason == "server-stopped"
    (kernel,) = desk.broker.acknowledged[lease.id].kernels
    assert (kernel.outcome, kernel.notebook) == ("saved", "a.ipynb")
    await desk.start()
    again = await desk.open()
    await offer(again)
    assert (await desk.gpu("restore", "a.ipynb", "x")).code == 0
    assert await again.run("print(x)") == "from the GPU\n"


async def test_a_cell_that_runs_for_ever_is_interrupted_and_its_variables_saved(desk: Desk) -> None:
    notebook = await desk.open()
    await notebook.run("x = 1; import time")
    endless = asyncio.ensure_future(notebook.run("x = 2\nwhile True: time.sleep(0.05)"))

    async def busy() -> bool:
        return bool((await notebook.status())["busy"])

    await eventually(busy, "the cell")
    began = time.monotonic()
    await desk.stop()
    assert time.monotonic() - began < 25
    endless.cancel()
    await desk.start()
    again = await desk.open()
    await offer(again)
    assert (await desk.gpu("restore", "a.ipynb")).code == 0
    assert await again.run("print(x)") == "2\n"


async def test_a_second_signal_does_not_cut_the_saving_short(desk: Desk) -> None:
    notebook = await desk.open()
    await notebook.run("x = 'kept'; import time")
    busy = asyncio.ensure_future(notebook.run("time.sleep(2); x += ' to the end'"))
    await asyncio.sleep(0.5)
    assert desk.process is not None
    desk.process.terminate()
    await asyncio.sleep(0.5)
    await desk.stop()
    busy.cancel()
    await desk.start()
    again = await desk.open()
    await offer(again)
    assert (await desk.gpu("restore", "a.ipynb")).code == 0
    assert await again.run("print(x)") == "kept to the end\n"


async def test_a_kill_leaves_nothing_of_the_session_behind_that_hinders_the_next_start(desk: Desk) -> None:
    await desk.open()
    await desk.stop(signal.SIGKILL)
    assert desk.socket.exists()
    await desk.start()
    assert (await desk.gpu("status")).code == 0


SLEEPER = """
import time
from tornado import web

class Sleeps(web.RequestHandler):
    def get(self):
        time.sleep(8)

def _load_jupyter_server_extension(app):
    app.web_app.add_handlers(".*", [(app.web_app.settings["base_url"] + "sleep", Sleeps)])
"""


async def test_a_blocked_jupyter_server_blocks_neither_the_gpu_command_nor_a_move(desk: Desk) -> None:
    await desk.stop()
    (desk.folder / "sleeper.py").write_text(SLEEPER)
    await desk.start(extensions=["sleeper"], PYTHONPATH=str(desk.folder))
    notebook = await desk.open()
    await notebook.run("x = 5")
    assert (await notebook.status())["notebook"] == "a.ipynb"
    block = asyncio.ensure_future(desk.call("GET", "sleep"))
    await asyncio.sleep(0.3)
    on = await desk.gpu("on", "a.ipynb")
    assert on.code == 0, on.err
    assert not block.done(), "the move waited for Jupyter"
    assert (await desk.gpu("status", "--json")).data["kernels"][0]["placement"] == "worker"
    await block
    assert await notebook.run("print(x)") == "5\n"
