"""Programs that start kernels themselves: nbclient, papermill, a plain kernel manager, a raw process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.connect import write_connection_file

from gpulease import errors
from gpusession.kernels import hosted, kernelspecs
from gpusession.privatesocket import PrivateSocket
from tests.service.kernels.conftest import Server, until


class Near:
    """What a program in the server's terminal finds: the private socket and the kernel spec."""

    def __init__(self, server: Server, private: PrivateSocket) -> None:
        self.server = server
        self.programs: list[asyncio.subprocess.Process] = []
        self.env = {**os.environ, "GPUHUB_SOCKET": str(private.path)}
        kernelspecs.offer(server.folder / "offer", self.env)

    async def start(self, *argv: str, **more: str) -> asyncio.subprocess.Process:
        program = await asyncio.create_subprocess_exec(
            *argv,
            env={**self.env, **more},
            cwd=self.server.folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.programs.append(program)
        return program

    async def end(self) -> None:
        for program in self.programs:
            if program.returncode is None:
                program.kill()
            print((await program.communicate())[1].decode())

    async def run_notebook(self, *cells: str, kernel: str = kernelspecs.NAME) -> Any:
        """Run cells with papermill, as a script would; return the notebook as it was written."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
        notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
        nbformat.write(notebook, self.server.folder / "in.ipynb")
        command = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "--log-output"]
        program = await self.start(*command)
        output, error = await asyncio.wait_for(program.communicate(), 100)
        written = nbformat.read(self.server.folder / "out.ipynb", as_version=4)
        return program.returncode, written, (output + error).decode()


@pytest.fixture
async def near(server: Server) -> AsyncIterator[Near]:
    private = PrivateSocket(server.short, "ann", {})

    async def open_() -> None:
        private.mount(hosted.routes(server.session, None))  # type: ignore[arg-type]
        await private.open()

    await server.call(open_())
    made = Near(server, private)
    yield made
    await made.end()
    await server.call(private.close())


async def test_papermill_with_the_gpu_kernel_runs_its_cells_on_the_worker(near: Near) -> None:
    code = "import os; x = os.environ['GPUHUB_KERNEL_ID']; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    status, written, log = await near.run_notebook(code, "print(len(x) > 0)")
    assert status == 0, log
    ran = [
        cell for cell in written.cells if cell.cell_type == "code" and "injected" not in str(cell.metadata)
    ]
    texts = ["".join(out.get("text", "") for out in cell.outputs if out.name == "stdout") for cell in ran]
    assert texts == ["None\n", "True\n"], texts
    assert len(near.server.workers) == 1
    assert len(near.server.workers[0].kernels) == 1
    await until(lambda: not near.server.session.kernels, "the kernel to be closed")
    await until(lambda: near.server.broker.leases["lease1"].state.value == "ended", "the GPU to go back")


async def test_while_it_waits_the_first_cell_says_for_what(near: Near) -> None:
    near.server.broker.generous = False
    running = asyncio.create_task(near.run_notebook("print('done')"))
    await until(lambda: near.server.broker.leases, "the request")
    await asyncio.sleep(2.5)
    await near.server.call(near.server.broker.activate("lease1"))
    status, written, log = await running
    assert status == 0, log
    outputs = written.cells[-1].outputs
    assert [out.text for out in outputs if out.name == "stdout"] == ["done\n"]
    said = "".join(out.text for out in outputs if out.name == "stderr")
    assert "wait" in said.lower()
    assert "on the GPU now" in said


async def test_a_refused_gpu_fails_the_cell_with_the_reason(near: Near) -> None:
    near.server.broker.refuse = errors.LimitReached("You use 1 of 1 GPUs already.")
    status, written, _ = await near.run_notebook("print('never')", "print('never either')")
    assert status != 0
    failed = next(cell for cell in written.cells if cell.source == "print('never')")
    problems = [out for out in failed.outputs if out.output_type == "error"]
    assert problems[0].ename == "NoGpu"
    assert "1 of 1 GPUs" in problems[0].evalue
    assert not near.server.workers


async def test_an_ordinary_kernel_of_another_program_can_be_hosted_and_moved(near: Near) -> None:
    program = await near.start(
        sys.executable,
        "-c",
        """
import asyncio, os, sys
from jupyter_client.manager import start_new_async_kernel
async def main():
    manager, client = await start_new_async_kernel(kernel_name="python3")
    await client.execute_interactive("import os; a = os.environ['GPUHUB_KERNEL_ID']; x = [1]", timeout=60)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    said = []
    await client.execute_interactive(
        "x.append(2); print(x)", timeout=60, output_hook=lambda m: said.append(m["content"].get("text", ""))
    )
    print("".join(said).strip(), flush=True)
    client.stop_channels()
    await manager.shutdown_kernel()
asyncio.run(main())
""",
        JUPYTER_DEFAULT_PROVISIONER_NAME="gpuhub-provisioner",
    )
    assert program.stdout is not None
    assert await asyncio.wait_for(program.stdout.readline(), 60) == b"ready\n"
    (kernel_id,) = near.server.session.kernels
    await near.server.call(near.server.session.ask(kernel_id, "worker"))
    await near.server.call(near.server.session.kernels[kernel_id].settled())
    assert near.server.session.kernels[kernel_id].placement == "worker"
    program.kill()
    await program.wait()
    await until(lambda: not near.server.session.kernels, "the kernel to end with the program", 20)


class Raw:
    """A kernel process started as VS Code does: from the file, without jupyter_client's manager."""

    def __init__(self, near: Near) -> None:
        self.near = near
        self.file = str(near.server.folder / "raw.json")
        self.key = b"raw" * 10
        write_connection_file(self.file, key=self.key)

    async def start(self, **env: str) -> None:
        spec = json.loads(
            (self.near.server.folder / "offer/share/kernels" / kernelspecs.NAME / "kernel.json").read_text()
        )
        argv = [part.replace("{connection_file}", self.file) for part in spec["argv"]]
        self.process = await self.near.start(*argv, **env)
        self.client = AsyncKernelClient(connection_file=self.file)
        self.client.load_connection_file()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=60)

    async def end(self) -> int:
        self.client.shutdown()
        status = await asyncio.wait_for(self.process.wait(), 20)
        self.client.stop_channels()
        return status


async def test_a_kernel_started_from_its_spec_file_is_interrupted_and_shut_down(near: Near) -> None:
    raw = Raw(near)
    await raw.start()
    sleeping = asyncio.create_task(raw.client.execute_interactive("import time; time.sleep(100)", timeout=30))
    await until(lambda: near.server.workers and near.server.session.kernels, "the worker")
    (kernel_id,) = near.server.session.kernels
    endpoint = near.server.session.kernels[kernel_id].endpoint
    await until(lambda: endpoint.in_flight and endpoint.running.placement == "worker", "the cell to run")
    await asyncio.sleep(0.3)
    raw.process.send_signal(signal.SIGINT)
    assert (await sleeping)["content"]["ename"] == "KeyboardInterrupt"
    assert await raw.end() == 0
    await until(lambda: not near.server.session.kernels, "the kernel to be closed")


async def test_killing_the_stand_in_ends_the_kernel(near: Near) -> None:
    raw = Raw(near)
    await raw.start()
    (kernel_id,) = near.server.session.kernels
    process = near.server.session.kernels[kernel_id].endpoint.running
    raw.process.kill()
    await raw.process.wait()
    await until(lambda: not near.server.session.kernels, "the kernel to be closed")
    await until(process.exited.done, "its process to end")
    raw.client.stop_channels()


async def test_without_a_server_the_kernel_runs_where_it_was_started(near: Near, tmp_path: Path) -> None:
    raw = Raw(near)
    await raw.start(GPUHUB_SOCKET=str(tmp_path / "nothing"))
    reply = await raw.client.execute_interactive("1 + 1", timeout=30)
    assert reply["content"]["status"] == "ok"
    assert not near.server.session.kernels
    assert await raw.end() == 0
