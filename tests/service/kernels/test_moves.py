"""Kernels that move under real clients: nothing lost, nothing twice, nothing out of order."""

from __future__ import annotations

import asyncio

from tests.service.kernels.conftest import Server


async def test_a_stream_of_cells_goes_through_moves_each_once_in_order(server: Server) -> None:
    manager, reader = await server.open()
    await reader.run("import os; seen = []")
    cells = []
    sending = True

    async def send() -> None:
        while sending:
            number = len(cells)
            cells.append(reader.send(f"seen.append({number}); print('cell', {number}, os.getpid())"))
            await asyncio.sleep(0.01)

    sender = asyncio.create_task(send())
    for placement in ("worker", "server", "worker", "server"):
        status = await server.flip(manager, placement)
        assert (status.placement, status.move.step) == (placement, "done")
    sending = False
    await sender
    for cell in cells:
        await reader.finish(cell)
    assert len(cells) > 20
    assert await reader.value("seen") == list(range(len(cells)))
    pids = set()
    for number, cell in enumerate(cells):
        assert cell.status == "ok"
        assert (cell.states.count("busy"), cell.states.count("idle")) == (1, 1)
        words = cell.text.split()
        assert words[:2] == ["cell", str(number)]
        pids.add(words[2])
        assert [kind for kind, _ in cell.published if kind == "execute_input"] == ["execute_input"]
    assert len(pids) == 5
    assert await reader.value("__import__('os').environ.get('CUDA_VISIBLE_DEVICES')") == ""
    assert not any("gpuhub" in kind for kind in reader.kinds)
