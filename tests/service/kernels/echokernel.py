"""A kernel of another language: it says what it is told. With ``--tcp-only`` it cannot do ipc."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel


class EchoKernel(Kernel):
    implementation = "echo"
    implementation_version = "1"
    language = "echo"
    language_info = {"name": "echo", "mimetype": "text/plain", "file_extension": ".txt"}  # noqa: RUF012
    banner = "echo"
    said = 0

    async def do_execute(self, code: str, silent: bool, *_: Any, **__: Any) -> dict[str, Any]:
        if code == "crash":
            os._exit(3)
        EchoKernel.said += 1
        text = f"{EchoKernel.said} {code}\n"
        self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": text})
        return {
            "status": "ok",
            "execution_count": self.execution_count,
            "payload": [],
            "user_expressions": {},
        }


if __name__ == "__main__":
    if "--tcp-only" in sys.argv:
        sys.argv.remove("--tcp-only")
        with open(sys.argv[sys.argv.index("-f") + 1]) as file:
            if json.load(file)["transport"] != "tcp":
                sys.exit("this kernel can do TCP only")
    IPKernelApp.launch_instance(kernel_class=EchoKernel)
