"""A kubelet as far as PodResources goes: gRPC on a Unix socket, with the messages of the .proto file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

PROTO = "tests/service/agent/podresources.proto"
RESOURCE = "nvidia.com/gpu"


class Kubelet:
    """Knows pods and their devices; a test changes `pods`, by (namespace, name)."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.pods: dict[tuple[str, str], list[str]] = {}
        self.hang = threading.Event()
        self._messages, self._services = grpc.protos_and_services(PROTO)
        self._server: Any = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._services.add_PodResourcesListerServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix://{self.socket}")
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None
        self.socket.unlink(missing_ok=True)

    def List(self, request: Any, context: Any) -> Any:
        if self.hang.is_set():
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
        return self._messages.ListPodResourcesResponse(
            pod_resources=[self._pod(*key, devices) for key, devices in self.pods.items()]
        )

    def _pod(self, namespace: str, name: str, devices: list[str]) -> Any:
        said = self._messages
        topology = said.NUMATopology(nodes=[said.NUMANode(ID=0)])
        gpus = [
            said.ContainerDevices(resource_name=RESOURCE, device_ids=[one], topology=topology)
            for one in devices
        ]
        other = said.ContainerDevices(resource_name="rdma/hca", device_ids=["mlx5_0"])
        worker = said.ContainerResources(
            name="worker",
            devices=[other, *gpus],
            cpu_ids=[0, 1, 2],
            memory=[said.ContainerMemory(memory_type="memory", size=2**30, topology=topology)],
            dynamic_resources=[said.DynamicResource(claim_name="claim", claim_namespace=namespace)],
        )
        sidecar = said.ContainerResources(name="sidecar")
        return said.PodResources(name=name, namespace=namespace, containers=[sidecar, worker])


@contextmanager
def running_kubelet(socket: Path) -> Iterator[Kubelet]:
    kubelet = Kubelet(socket)
    kubelet.start()
    try:
        yield kubelet
    finally:
        kubelet.stop()
