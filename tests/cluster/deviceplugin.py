"""Offers the simulated GPUs through the kubelet's own device plugin API, as NVIDIA's plugin does.

So everything above is real: scheduling, admission, PodResources, health, and ``NVIDIA_VISIBLE_DEVICES`` with
the UUIDs that a container got. It also mounts each GPU's ``use`` folder at /run/gpu/UUID, and whatever
``--mount HOST:CONTAINER`` names (a stand-in library). A kubelet that starts again is told again.

    python -m tests.cluster.deviceplugin [--state DIR] [--mount HOST:CONTAINER ...]      # on the node
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from tests.cluster.gpus import IN_CONTAINER, ON_NODE, RESOURCE, Gpus

FOLDER = Path("/var/lib/kubelet/device-plugins")
KUBELET = FOLDER / "kubelet.sock"
SOCKET = FOLDER / "gpuhub-test.sock"
PROTO = "tests/cluster/deviceplugin.proto"
LOOK_SECONDS = 0.2
WORKERS = 16
# A Unix socket has no host name, and the kubelet refuses the one that gRPC makes up.
OPTIONS = (("grpc.default_authority", "localhost"),)


class Plugin:
    """The three calls of the API."""

    def __init__(self, gpus: Gpus, mounts: list[tuple[str, str]], messages: Any) -> None:
        self._gpus, self._mounts, self._messages = gpus, mounts, messages

    def GetDevicePluginOptions(self, request: Any, context: Any) -> Any:
        return self._messages.DevicePluginOptions()

    def ListAndWatch(self, request: Any, context: Any) -> Iterator[Any]:
        told: list[tuple[str, str]] | None = None
        while context.is_active():
            now = [(self._gpus.ids()[index], self._gpus.health(index)) for index in self._gpus.indices()]
            if now != told:
                told = now
                print(f"devices: {now}", flush=True)
                devices = [self._messages.Device(ID=name, health=health) for name, health in now]
                yield self._messages.ListAndWatchResponse(devices=devices)
            time.sleep(LOOK_SECONDS)

    def Allocate(self, request: Any, context: Any) -> Any:
        index = {name: index for index, name in enumerate(self._gpus.ids())}
        answers = []
        for one in request.container_requests:
            ids = sorted(one.devices_ids, key=index.__getitem__)
            print(f"allocated: {ids}", flush=True)
            mounts = [
                (str(self._gpus.use_folder(index[name])), str(IN_CONTAINER / name), False) for name in ids
            ]
            mounts += [(host, inside, True) for host, inside in self._mounts]
            answers.append(
                self._messages.ContainerAllocateResponse(
                    envs={"NVIDIA_VISIBLE_DEVICES": ",".join(ids)},
                    mounts=[
                        self._messages.Mount(host_path=host, container_path=inside, read_only=read_only)
                        for host, inside, read_only in mounts
                    ],
                )
            )
        return self._messages.AllocateResponse(container_responses=answers)


def serve(plugin: Plugin, messages: Any, services: Any) -> None:
    """Serve and register; return when the kubelet's socket is another one."""
    socket_id = _identity(KUBELET)
    SOCKET.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(WORKERS))
    services.add_DevicePluginServicer_to_server(plugin, server)
    server.add_insecure_port(f"unix://{SOCKET}")
    server.start()
    try:
        with grpc.insecure_channel(f"unix://{KUBELET}", options=OPTIONS) as channel:
            services.RegistrationStub(channel).Register(
                messages.RegisterRequest(version="v1beta1", endpoint=SOCKET.name, resource_name=RESOURCE),
                timeout=5,
            )
        print("registered", flush=True)
        # A kubelet that starts anew empties the folder and makes its socket again.
        while _identity(KUBELET) == socket_id and SOCKET.exists():
            time.sleep(LOOK_SECONDS)
    finally:
        server.stop(None)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns


def main(arguments: list[str]) -> None:
    """Offer the GPUs, for ever."""
    parser = argparse.ArgumentParser(prog="tests.cluster.deviceplugin")
    parser.add_argument("--state", type=Path, default=ON_NODE)
    parser.add_argument("--mount", action="append", default=[], metavar="HOST:CONTAINER")
    options = parser.parse_args(arguments)
    messages, services = grpc.protos_and_services(PROTO)
    mounts = [(host, inside) for host, _, inside in (one.partition(":") for one in options.mount)]
    plugin = Plugin(Gpus(options.state), mounts, messages)
    while True:
        try:
            if KUBELET.exists():
                serve(plugin, messages, services)
        except grpc.RpcError as error:
            print(f"the kubelet did not take it: {error}", flush=True)
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
