"""Kinds of objects that pickle alone does not carry well: one file each, and others can add theirs.

A codec is an object with a ``library`` (the module that must be loaded before it matters; it is never
imported for a codec) and ``handlers()``, which yields pairs of a type and a function. The most
special type in an object's ``__mro__`` wins. The function gets the object and the pickler and
returns what ``__reduce__`` would return, or ``NotImplemented`` (pickle decides), or raises
`gpusession.state.refusals.Refused` with a reason and a hint. A package of its own registers its
codec with an entry point in the group ``gpuhub.codecs``. For example, a codec for a mesh that
lives on a device::

    from gpusession.state.refusals import Refused

    class MeshCodec:
        library = "meshes"

        def handlers(self):
            import meshes  # loaded already: no side effects here

            yield meshes.Mesh, self.reduce_mesh

        def reduce_mesh(self, mesh, pickler):
            if mesh.locked:
                raise Refused("The mesh is being edited.", "Close the editor, then save again.")
            pickler.note("Its preview is drawn again.")     # shown beside "kept"
            # pickler.anew("Its handle is opened anew.")    # the same, and "rebuilt" instead of "kept"
            return rebuild_mesh, (mesh.to_host(), mesh.device_name)

    codec = MeshCodec()

    # pyproject.toml
    [project.entry-points."gpuhub.codecs"]
    meshes = "meshes_gpuhub:codec"

What a reducer names (``rebuild_mesh``) must be importable where the snapshot is loaded. Arrays inside
the returned arguments are NumPy arrays as far as possible: their memory is written without a copy.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import sys
from collections.abc import Iterator
from typing import Any, Protocol

GROUP = "gpuhub.codecs"
log = logging.getLogger(__name__)


class Codec(Protocol):
    """See the module."""

    library: str

    def handlers(self) -> Iterator[tuple[type, Any]]:
        """Called only when ``library`` is loaded."""


OWN = (
    ("builtins", "stdlib"),
    ("builtins", "containers"),
    ("builtins", "finished"),
    ("builtins", "locks"),
    ("logging", "logs"),
    ("numpy", "numpy"),
    ("pandas", "pandas"),
    ("matplotlib.figure", "matplotlib"),
    ("PIL.ImageDraw", "pillow"),
    ("torch", "torch"),
    ("cupy", "cupy"),
    ("tensorflow", "tensorflow"),
    ("keras.src.saving.keras_saveable", "keras"),
)
"""Library and module of our own codecs: a module is imported only beside its library."""


def handlers() -> Iterator[tuple[type, Any]]:
    """Yield type and reducer of every codec whose library is loaded; later ones win."""
    for codec in (*_own(), *_registered()):
        if codec.library in sys.modules:
            try:
                yield from [*codec.handlers()]
            except (AttributeError, ImportError):
                # Another version of the library, or one that is half imported: pickle decides.
                log.warning("the codec for %s does not fit this version of it", codec.library)


def _own() -> Iterator[Codec]:
    for library, name in OWN:
        if library in sys.modules:
            codec: Codec = importlib.import_module(f"{__name__}.{name}").codec
            yield codec


def _registered() -> Iterator[Codec]:
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            yield point.load()
        except Exception:  # noqa: BLE001 — another package's code must not stop a save
            log.warning("the codec %s cannot be loaded", point.name)
