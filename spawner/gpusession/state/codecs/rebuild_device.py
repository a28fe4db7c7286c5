"""What a saved stream calls to make tensors and device arrays again, on the device or instead on the CPU."""

from __future__ import annotations

import io
from typing import Any


def storage(flat: Any, home: str) -> Any:
    """Memory that lay on ``home``: put there again if it exists here, else it stays in main memory."""
    import torch

    made = torch.from_numpy(flat).untyped_storage()
    if home.startswith("cuda") and torch.cuda.is_available():
        index = int(home.partition(":")[2] or 0)
        if index < torch.cuda.device_count():
            return made.cuda(device=index)
    return made


def storage_of(array: Any, home: str) -> Any:
    """The memory that a NumPy array owns."""
    import torch

    del home
    return torch.from_numpy(array.reshape(-1, order="A").view("u1")).untyped_storage()


def spent(value: Any, node: str = "SpentBackward") -> Any:
    """A result without its computation: it looks as before, and asking for gradients through it fails."""
    import torch

    class Spent(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(context: Any, given: Any) -> Any:
            del context
            return given.clone()

        @staticmethod
        def backward(context: Any, *_: Any) -> Any:
            del context
            raise RuntimeError("The computation behind this tensor was not carried: run its cell again.")

    Spent._backward_cls.__name__ = node
    return Spent.apply(value.requires_grad_())


def tensor(
    store: Any,
    home: str,
    dtype: Any,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    parameter: bool,
    wants_gradient: bool,
) -> Any:
    import torch

    made = torch.empty(0, dtype=dtype, device=store.device).set_(store, offset, size, stride)
    if parameter:
        made = torch.nn.Parameter(made, requires_grad=wants_gradient)
    else:
        made.requires_grad = wants_gradient
    if str(store.device) != home:
        made._gpuhub_home = home
    return made


def fill_tensor(made: Any, state: tuple[Any, dict[str, Any]]) -> None:
    grad, attributes = state
    if grad is not None:
        made.grad = grad
    made.__dict__.update({name: value for name, value in attributes.items() if name != "_gpuhub_home"})


def plain(kind: Any) -> Any:
    return kind.__new__(kind)


def fill_plain(made: Any, state: dict[str, Any]) -> None:
    made.__dict__.update(state)


RESTS = "_gpuhub_rests"


def fill_scaler(made: Any, state: dict[str, Any]) -> None:
    import torch

    made.__dict__.update(state)
    if made._enabled and str(made._device).startswith("cuda") and not torch.cuda.is_available():
        made._enabled = False
        made.__dict__[RESTS] = True


def script(program: bytes, tensors: list[Any]) -> Any:
    import torch

    made = torch.jit.load(io.BytesIO(program), map_location="cpu")
    for own, shared in zip([*made.parameters(), *made.buffers()], tensors, strict=True):
        own.data = shared.data
    return made


def generator(where: str, state: Any) -> Any:
    import torch

    on = where if where == "cpu" or torch.cuda.is_available() else "cpu"
    made = torch.Generator(device=on)
    if on == where:
        made.set_state(torch.from_numpy(state))
    return made


def device(name: str) -> Any:
    import torch

    return torch.device(name)


def cupy_array(host: Any, number: int) -> Any:
    import cupy

    with cupy.cuda.Device(number if number < cupy.cuda.runtime.getDeviceCount() else 0):
        return cupy.asarray(host)
