"""CuPy arrays: written through the host, made again on the device of the same number where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpusession.state.codecs import rebuild_device as rebuild
from gpusession.state.pickling import StatePickler


class CupyCodec:
    library = "cupy"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        import cupy

        yield cupy.ndarray, reduce_array


codec = CupyCodec()


def reduce_array(array: Any, pickler: StatePickler) -> Any:
    host = array.get()
    pickler.record.keep.append(host)
    return rebuild.cupy_array, (host, int(array.device.id))
