"""PyTorch: tensors by their storage, so that tied weights stay tied and views stay views.

A tensor on a GPU is written through the host with its device's name. Where that device does not exist
(back on the server) the tensor is made on the CPU, and remembers where it came from: the next move
to a GPU puts it there again. Nothing of torch is imported here unless the notebook did.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpusession.state.codecs import rebuild_device as rebuild
from gpusession.state.pickling import StatePickler
from gpusession.state.refusals import Refused


class TorchCodec:
    library = "torch"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        import torch

        yield torch.Tensor, reduce_tensor
        yield torch.nn.Parameter, reduce_tensor
        yield torch.UntypedStorage, reduce_storage
        yield torch.Generator, reduce_generator
        yield torch.device, reduce_device


codec = TorchCodec()


def reduce_tensor(tensor: Any, pickler: StatePickler) -> Any:
    import torch

    kind = type(tensor)
    if kind not in (torch.Tensor, torch.nn.Parameter):
        return NotImplemented
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type not in ("cpu", "cuda"):
        return NotImplemented
    if not tensor.is_leaf and tensor.requires_grad:
        raise Refused(
            "It is in the middle of a computation whose gradients were not taken yet.",
            "Run the cell that computes it again.",
        )
    if tensor.is_conj() or tensor.is_neg():
        return NotImplemented
    store = tensor.untyped_storage()
    # The same storage may come in another wrapper each time.
    store = pickler.record.same.setdefault(store._cdata, store)
    home = getattr(tensor, "_gpuhub_home", None) or str(store.device)
    pickler.record.homes[store._cdata] = home
    args = (
        store,
        home,
        tensor.dtype,
        tensor.storage_offset(),
        tuple(tensor.size()),
        tuple(tensor.stride()),
        kind is torch.nn.Parameter,
        bool(tensor.requires_grad),
    )
    hooks = tensor._backward_hooks
    if hooks:
        pickler.note("Its hooks are not carried.")
    state = (tensor.grad, dict(tensor.__dict__))
    return rebuild.tensor, args, state, None, None, rebuild.fill_tensor


def reduce_storage(storage: Any, pickler: StatePickler) -> Any:
    import torch

    host = storage if storage.device.type == "cpu" else storage.cpu()
    pickler.record.keep.append(host)
    flat = torch.empty(0, dtype=torch.uint8).set_(host).numpy()
    pickler.record.keep.append(flat)
    return rebuild.storage, (flat, pickler.record.homes.get(storage._cdata, str(storage.device)))


def reduce_generator(generator: Any, _pickler: StatePickler) -> Any:
    return rebuild.generator, (str(generator.device), generator.get_state().numpy().copy())


def reduce_device(device: Any, _pickler: StatePickler) -> Any:
    return rebuild.device, (str(device),)
