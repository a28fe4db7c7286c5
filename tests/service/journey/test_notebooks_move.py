"""The main job: a notebook that moves comes out as if it had never moved.

Each notebook runs once in a plain kernel that stays where it is. Then it runs again: the first
half on the server, the next part on the worker, the rest back on the server; at other cuts too.
What the cells print must be the same, cell by cell.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.person import Person
from tests.running import RunningHub

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[str]:
    notebook = nbformat.read(path, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def text_of(outputs: list[dict]) -> str:
    parts = []
    for output in outputs:
        if output["output_type"] == "stream":
            parts.append(output["text"])
        elif output["output_type"] in ("execute_result", "display_data"):
            parts.append(output["data"].get("text/plain", "") + "\n")
        else:
            parts.append(f"{output['ename']}: {output['evalue']}\n")
    return "".join(parts)


@pytest.fixture(scope="module")
def never_moved() -> dict[str, list[str]]:
    """What each notebook prints in a plain kernel, by file name."""
    printed = {}
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
        printed[path.name] = [text_of(c.outputs) for c in notebook.cells if c.cell_type == "code"]
    return printed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("cut", ["early", "half"])
async def test_a_notebook_that_moves_prints_what_one_that_stays_prints(
    path: Path, cut: str, hub: RunningHub, never_moved: dict[str, list[str]]
) -> None:
    cells = code_cells(path)
    away = 2 if cut == "early" else len(cells) // 2
    back = (away + len(cells)) // 2
    async with await Person.enrol(
        hub.url, hub.admin_token, f"nb-{path.stem.replace('_', '-')[:12]}-{cut}"
    ) as ann:
        await ann.start_server()
        tab = await ann.open(path.name)
        printed = []
        for index, source in enumerate(cells):
            if index == away:
                status = await tab.flip("worker")
                assert [v for v in status["last_verdict"] if v["verdict"] == "left"] == []
                assert "SIM-" in await tab.value("__import__('os').environ['CUDA_VISIBLE_DEVICES']")
            if index == back:
                await tab.flip("server")
                assert await tab.value("__import__('os').environ['CUDA_VISIBLE_DEVICES']") == "''"
            printed.append((await tab.run(source)).text)
        await ann.broker_release()
        await ann.stop_server()
    assert printed == never_moved[path.name]


async def test_run_all_during_a_move_runs_every_cell_once_and_in_order(hub: RunningHub) -> None:
    async with await Person.enrol(hub.url, hub.admin_token, "runner") as ann:
        await ann.start_server()
        tab = await ann.open("run_all.ipynb")
        await tab.run("import time\nseen = []")
        before = [await tab.submit(f"time.sleep(0.02); seen.append({n}); print({n})") for n in range(40)]
        await tab.ask("worker")
        during = []
        for n in range(40, 140):
            during.append(await tab.submit(f"seen.append({n}); print({n})"))
            await asyncio.sleep(0.02)
        results = [await tab.result(m) for m in before + during]
        await tab.settled()
        assert [r.text.strip() for r in results] == [str(n) for n in range(140)]
        assert {(r.status, r.replies, r.idles) for r in results} == {("ok", 1, 1)}
        counts = [r.count for r in results]
        assert counts == list(range(counts[0], counts[0] + 140))
        assert await tab.value("seen == list(range(140))") == "True"
        assert (await tab.status())["placement"] == "worker"
        await ann.broker_release()
        await ann.stop_server()
