"""PyTorch: tensors by their storage, so that tied weights stay tied and views stay views.

A tensor on a GPU is written through the host with its device's name. Where that device does not exist
(back on the server) the tensor is made on the CPU, and remembers where it came from: the next move
to a GPU puts it there again. Nothing of torch is imported here unless the notebook did.
"""

from __future__ import annotations

import copyreg
import io
from collections.abc import Iterator
from typing import Any

from gpusession.state.codecs import rebuild_device as rebuild
from gpusession.state.pickling import StatePickler


class TorchCodec:
    library = "torch"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        import torch

        yield torch.Tensor, reduce_tensor
        yield torch.nn.Parameter, reduce_tensor
        yield torch.UntypedStorage, reduce_storage
        yield torch.Generator, reduce_generator
        yield torch.device, reduce_device
        yield torch.nn.Module, reduce_module
        yield torch.jit.ScriptModule, reduce_script
        yield torch.optim.Optimizer, reduce_optimizer
        yield torch.amp.GradScaler, reduce_scaler


codec = TorchCodec()


def reduce_tensor(tensor: Any, pickler: StatePickler) -> Any:
    import torch

    kind = type(tensor)
    if kind not in (torch.Tensor, torch.nn.Parameter):
        return NotImplemented
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type not in ("cpu", "cuda"):
        return NotImplemented
    if not tensor.is_leaf and tensor.requires_grad:
        pickler.note("The computation behind it is not carried: gradients through it are refused.")
        value = tensor.detach()
        pickler.record.keep.append(value)
        return rebuild.spent, (value, type(tensor.grad_fn).__name__)
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


def reduce_module(module: Any, _pickler: StatePickler) -> Any:
    """A module with computed weights (weight norm) is of a class of its own, and refuses torch's pickle."""
    if "parametrizations" not in module._modules or type(module).__module__ == "__main__":
        return NotImplemented
    return rebuild.plain, (type(module),), dict(module.__dict__), None, None, rebuild.fill_plain


def reduce_script(module: Any, pickler: StatePickler) -> Any:
    """A compiled or traced module: its program as torch writes it, its tensors like all others, shared."""
    import torch

    program = io.BytesIO()
    torch.jit.save(module, program)
    tensors = [*module.parameters(), *module.buffers()]
    pickler.record.keep.append(tensors)
    return rebuild.script, (program.getvalue(), tensors)


def reduce_scaler(scaler: Any, pickler: StatePickler) -> Any:
    """One for a GPU rests where there is none: it would fail at its first use."""
    state = dict(scaler.__getstate__())
    if state.pop(rebuild.RESTS, False):
        state["_enabled"] = True
    pickler.record.keep.append(state)
    return rebuild.plain, (type(scaler),), state, None, None, rebuild.fill_scaler


def reduce_optimizer(optimizer: Any, _pickler: StatePickler) -> Any:
    """With everything that hangs at it: torch's own pickle forgets hooks, and that a scheduler watches it."""
    import torch

    if type(optimizer).__getstate__ is not torch.optim.Optimizer.__getstate__:
        return NotImplemented
    return copyreg.__newobj__, (type(optimizer),), dict(optimizer.__dict__)  # type: ignore[attr-defined]
