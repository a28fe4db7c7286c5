"""Which pod has which GPU, asked from the kubelet: its PodResources API, version 1, over a Unix socket.

Only ``List``, and of its answer only what is needed. The messages are described here by field numbers (they
are the kubelet's own, ``k8s.io/kubelet/pkg/apis/podresources/v1``), so that nothing must be generated and
fields of newer kubelets are passed over. Blocks: only threads call it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
METHOD = "/v1.PodResourcesLister/List"
RESOURCES = ("nvidia.com/",)
"""Prefixes of the extended resources that are GPUs."""
ANSWER_SECONDS = 3.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""As the kubelet's own clients allow: a large node has some hundred pods."""

_STRING, _MESSAGE = 9, 11
_PACKAGE = "v1"
_MESSAGES: dict[str, dict[str, tuple[int, bool, str | None]]] = {
    # message: {field: (number, repeated, type; None is a string)}
    "ListPodResourcesRequest": {},
    "ContainerDevices": {"resource_name": (1, False, None), "device_ids": (2, True, None)},
    "ContainerResources": {"name": (1, False, None), "devices": (2, True, "ContainerDevices")},
    "PodResources": {
        "name": (1, False, None),
        "namespace": (2, False, None),
        "containers": (3, True, "ContainerResources"),
    },
    "ListPodResourcesResponse": {"pod_resources": (1, True, "PodResources")},
}


class KubeletAway(Exception):
    """The kubelet does not say now. The message is one sentence for an operator."""


@dataclass(frozen=True)
class PodGpus:
    """The GPUs of one pod."""

    namespace: str
    pod: str
    device_ids: tuple[str, ...]


@functools.cache
def _classes() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="gpuhub/podresources.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, repeated, kind) in fields.items():
            described = message.field.add(name=field, number=number, label=3 if repeated else 1)
            described.type = _STRING if kind is None else _MESSAGE  # type: ignore[assignment]
            if kind is not None:
                described.type_name = f".{_PACKAGE}.{kind}"
    # A pool of its own: other programs in this process may describe the same messages.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


def gpus_by_pod(socket: Path = SOCKET, *, answer_seconds: float = ANSWER_SECONDS) -> tuple[PodGpus, ...]:
    """Return the pods of this node that have GPUs. Raises `KubeletAway`."""
    try:
        import grpc  # type: ignore[import-untyped]
    except ImportError:
        raise KubeletAway("The Python package grpcio is not installed.") from None
    request, response = _classes()["ListPodResourcesRequest"], _classes()["ListPodResourcesResponse"]
    # A channel per question: after a restart of the kubelet the socket is another one.
    options = [
        ("grpc.default_authority", "localhost"),
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
        ("grpc.enable_retries", 0),
    ]
    try:
        with grpc.insecure_channel(f"unix://{socket.absolute()}", options=options) as channel:
            ask = channel.unary_unary(
                METHOD,
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            answer = ask(request(), timeout=answer_seconds)
    except grpc.RpcError as error:
        code = error.code().name if isinstance(error, grpc.Call) else type(error).__name__
        raise KubeletAway(f"The kubelet does not say which pod has which GPU ({code}).") from None
    except Exception as error:  # an answer that is no protobuf, a path that is too long, …
        raise KubeletAway(
            f"The kubelet's answer about GPUs cannot be read ({type(error).__name__})."
        ) from error
    return tuple(found for pod in answer.pod_resources if (found := _gpus(pod)).device_ids)


def _gpus(pod: Any) -> PodGpus:
    ids = {
        str(device_id): None  # a set that keeps the order: an init container has what the main one has
        for container in pod.containers
        for devices in container.devices
        if devices.resource_name.startswith(RESOURCES)
        for device_id in devices.device_ids
    }
    return PodGpus(str(pod.namespace), str(pod.name), tuple(ids))
