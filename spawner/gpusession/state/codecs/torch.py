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
        if not _is_spent(tensor):
            raise Refused(
                "It is in the middle of a computation whose gradients were not taken yet.",
                "Run the cell that computes it again.",
            )
        pickler.note("The computation behind it is over and is not carried.")
        value = tensor.detach()
        pickler.record.keep.append(value)
        return rebuild.spent, (value,)
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


def _is_spent(tensor: Any) -> bool:
    """Were the gradients taken, so that what the computation had kept for them is gone?"""
    todo, seen = [tensor.grad_fn], set[Any]()
    while todo and len(seen) < 10_000:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for name in dir(node):
            if name.startswith("_saved_"):
                try:
                    getattr(node, name)
                except RuntimeError:
                    return True
        todo.extend(one for one, _ in node.next_functions)
    return False


def flat_of(storage: Any, pickler: StatePickler) -> Any:
    """The bytes of a storage as one array, the same each time it is asked for."""
    import torch

    key = ("flat", storage._cdata)
    if key not in pickler.record.same:
        host = storage if storage.device.type == "cpu" else storage.cpu()
        pickler.record.keep.append((storage, host))
        pickler.record.same[key] = torch.empty(0, dtype=torch.uint8).set_(host).numpy()
    return pickler.record.same[key]


def reduce_storage(storage: Any, pickler: StatePickler) -> Any:
    home = pickler.record.homes.get(storage._cdata, str(storage.device))
    if storage.device.type == "cpu" and storage.nbytes():
        # An array may own this memory (`torch.from_numpy`); which one does is known after the look.
        address = storage.data_ptr()
        if not pickler.record.final:
            pickler.again = True
            pickler.weak["memory", address] = None
        owner = pickler.record.memory.get(address)
        if pickler.record.final and owner is not None and owner.nbytes >= storage.nbytes():
            return rebuild.storage_of, (owner, home)
    return rebuild.storage, (flat_of(storage, pickler), home)


def reduce_generator(generator: Any, _pickler: StatePickler) -> Any:
    return rebuild.generator, (str(generator.device), generator.get_state().numpy().copy())


def reduce_device(device: Any, _pickler: StatePickler) -> Any:
    return rebuild.device, (str(device),)
