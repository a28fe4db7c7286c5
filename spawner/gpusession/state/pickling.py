"""The pickler: protocol 5, buffers out of band, and a reducer for everything that pickle gets wrong.

Three things differ from cloudpickle, each for a loss that was seen:

* The notebook's namespace, the shell and their like are *anchors*: a stream refers to them and never
  holds them. Functions of the notebook so keep the live namespace as their globals, and one bad
  global does not sink every function that mentions it.
* Reducers are chosen by codecs (`gpusession.state.codecs`); types that must not be saved are
  refused before pickle can turn them into something else.
* An object that a module holds under a name (a sentinel such as ``dataclasses.MISSING``, a module's
  own random generator) is saved as that name, so that ``is`` keeps its answer.

Anchors are put into the memo before the first byte: a stream starts with them (`prelude`), and the
C pickler then refers to them at no cost. Our own failures are `BaseException`s: pickle, and objects
that guard themselves with ``except Exception``, cannot take them for "cannot be pickled".
"""

from __future__ import annotations

import builtins
import io
import pickle
import sys
import types
from collections import ChainMap
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import cloudpickle.cloudpickle as cp

from gpusession.state.instances import need_care
from gpusession.state.refusals import Refused, refused_types

PROTOCOL = 5
COPY_BYTES = 1 << 20
IN_BAND_BYTES = 4096
"""Smaller buffers stay in the stream: a table entry would cost more."""
NAN, MINUS_NAN = b"G\x7f\xf8\x00\x00\x00\x00\x00\x00", b"G\xff\xf8\x00\x00\x00\x00\x00\x00"
TAIL = 8

Handler = Callable[[Any, "StatePickler"], Any]
"""Returns a reduce value, or NotImplemented (pickle decides); raises `Refused`."""


class Broken(BaseException):
    """A failure of ours, or of the disk: it ends the whole save and never one variable.

    ``cause`` is the exception that it carries past pickle.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause


class Buffer:
    """A piece of memory beside the stream."""

    __slots__ = ("array", "nbytes", "view", "writable")

    def __init__(self, view: memoryview, array: list[Any] | None) -> None:
        self.view = view
        self.nbytes = view.nbytes
        self.writable = not view.readonly
        self.array = array
        """What the loader allocates: [dtype, shape, order]; None: plain memory."""


class Stream:
    """Collects what the pickler writes, or only counts it once it is more than ``keep_bytes``."""

    def __init__(self, keep_bytes: int, alive: Callable[[int], None] | None = None) -> None:
        self.chunks: list[Any] | None = []
        self.nbytes = 0
        self.copied = 0
        self.buffers: list[Buffer] = []
        self.has_nan = False
        self._keep_bytes = keep_bytes
        self._tail = b""
        self._alive = alive

    def write(self, data: Any) -> int:
        try:
            size = self._write(data)
        except Exception as error:
            raise Broken(error) from error
        if self._alive is not None:
            self._alive(size)
        return size

    def _write(self, data: Any) -> int:
        view = memoryview(data)
        size = view.nbytes
        self.nbytes += size
        whole = data if isinstance(data, bytes) else None
        if not self.has_nan and whole is not None:
            seam = self._tail + whole[:TAIL]
            self.has_nan = NAN in whole or NAN in seam or MINUS_NAN in whole or MINUS_NAN in seam
            self._tail = (self._tail + whole[-TAIL:])[-TAIL:]
        if self.chunks is not None:
            if whole is None or size < 1 << 20:
                self.copied += size
                whole = bytes(view) if whole is None else whole
            self.chunks.append(whole)
            if self.copied > self._keep_bytes:
                self.chunks = None
        return size

    @property
    def total_bytes(self) -> int:
        return self.nbytes + sum(one.nbytes for one in self.buffers)


def named_anchors(shell: Any) -> dict[str, Any]:
    """What a stream refers to by name because every kernel has its own."""
    named: dict[str, Any] = {
        "namespace": shell.user_ns,
        "main": shell.user_module,
        "shell": shell,
        "In": shell.user_ns.get("In"),
        "Out": shell.user_ns.get("Out"),
        "builtins": builtins.__dict__,
        "stdout": sys.stdout,
        "stderr": sys.stderr,
        "stdin": sys.stdin,
        "path": sys.path,
        "argv": sys.argv,
        "modules": sys.modules,
    }
    for name in ("kernel", "display_pub", "display_formatter", "events", "history_manager", "magics_manager"):
        named[name] = getattr(shell, name, None)
    return {name: value for name, value in named.items() if value is not None}


def anchors(shell: Any) -> dict[str, Any]:
    """The same, each object under one name only."""
    seen: set[int] = set()
    found: dict[str, Any] = {}
    for name, value in named_anchors(shell).items():
        if id(value) not in seen:
            seen.add(id(value))
            found[name] = value
    return found


class Gone:
    """Stands for an anchor that this kernel does not have."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this kernel has no {self._name}")


def prelude(names: Sequence[str]) -> bytes:
    """Return a small pickle that puts the named anchors into a loader's memo, in this order."""
    parts = [b"\x80\x05"]
    for name in names:
        text = name.encode()
        parts.append(b"\x8c" + bytes([len(text)]) + text + b"Q\x940")  # persistent id, memoize, pop
    parts.append(b"N.")
    return b"".join(parts)


class Kinds:
    """Which handler reduces which type, in one save. Built anew each time: modules come and go."""

    def __init__(self, handlers: Iterator[tuple[type, Handler]], local: Container[str] = ()) -> None:
        self._local = local
        self._handlers: dict[type, Handler] = {}
        for kind, why in refused_types():
            self._handlers[kind] = _refuser(*why)
        for kind, handler in handlers:
            self._handlers[kind] = handler
        self._known: dict[type, Handler | None] = {}
        self._decided: dict[tuple[Callable[[type], Any], type], Any] = {}
        self._held: dict[str, dict[int, tuple[str, Any]]] = {}
        self._by_reference: dict[int, tuple[Any, bool]] = {}

    def handler(self, kind: type) -> Handler | None:
        try:
            return self._known[kind]
        except KeyError:
            found = self._known[kind] = self._find(kind)
            return found

    def _find(self, kind: type) -> Handler | None:
        chosen: Handler | None = None
        for base in kind.__mro__:
            if base is object and not need_care(kind):
                break
            if base in self._handlers:
                chosen = self._handlers[base]
                break
        if issubclass(kind, type | types.FunctionType | types.ModuleType):
            return chosen
        module = kind.__module__ if isinstance(kind.__module__, str) else ""
        held = {
            ident: name for ident, (name, value) in self._globals_of(module).items() if type(value) is kind
        }
        return _named_first(module, held, chosen) if held else chosen

    def decided(self, decide: Callable[[type], Any], kind: type) -> Any:
        """Ask a question about a class once in a save."""
        known = (decide, kind)
        if known not in self._decided:
            self._decided[known] = decide(kind)
        return self._decided[known]

    def _globals_of(self, module: str) -> dict[int, tuple[str, Any]]:
        if module in ("__main__", "builtins", "") or module in self._local:
            return {}  # what a module of the person's own holds is carried, and so never named
        if module not in self._held:
            found = sys.modules.get(module)
            names = dict(vars(found)) if isinstance(found, types.ModuleType) else {}
            self._held[module] = {id(value): (name, value) for name, value in names.items()}
        return self._held[module]

    def named(self, thing: Any) -> bool:
        """Does a module hold this object under a name, so that it is saved as that name?"""
        module = type(thing).__module__
        return isinstance(module, str) and id(thing) in self._globals_of(module)

    def by_reference(self, thing: Any) -> bool:
        """Is this class or function what its module holds under its name?"""
        known = self._by_reference.get(id(thing))
        if known is None or known[0] is not thing:
            try:
                answer = bool(cp._should_pickle_by_reference(thing))
            except Exception:  # noqa: BLE001 — odd attributes of odd classes: then by value
                answer = False
            known = self._by_reference[id(thing)] = (thing, answer)
        return known[1]


def _refuser(reason: str, hint: str) -> Handler:
    def refuse(_obj: Any, _pickler: StatePickler) -> Any:
        raise Refused(reason, hint)

    return refuse


def _named_first(module: str, held: dict[int, str], chosen: Handler | None) -> Handler:
    from gpusession.state import rebuild

    def reduce(obj: Any, pickler: StatePickler) -> Any:
        name = held.get(id(obj))
        if name is not None:
            return rebuild.global_of, (module, name)
        return NotImplemented if chosen is None else chosen(obj, pickler)

    return reduce


_NOT_FROM_CLOUDPICKLE = {
    io.TextIOWrapper,
    memoryview,
    types.MappingProxyType,
    __import__("weakref").WeakSet,
    types.CellType,
    types.ModuleType,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
}


class Record:
    """What one save learns about its objects while it looks at them."""

    def __init__(self) -> None:
        self._lookers: dict[int, set[int]] = {}
        self._anchors: dict[int, tuple[int, Any]] = {}
        self.is_reached: Callable[[Any], bool] = lambda _: False
        """Does a variable hold this object strongly? Known after the first look."""
        self.final = False
        """The second pass: what is written now is what counts."""
        self.handmade: dict[int, types.ModuleType] = {}
        """Modules made in the notebook, by the id of their namespace."""
        self.same: dict[Any, Any] = {}
        """One wrapper for each thing that may come in several (a tensor's storage), by its address."""
        self.memory: dict[int, Any] = {}
        """Arrays that own their memory, by address: a tensor may use the same."""
        self.homes: dict[Any, str] = {}
        """The device on which a storage belongs, by its address."""
        self.memories: dict[int, bool] = {}
        """Can what a function with a memory remembers be saved? By the function's id."""
        self.keep: list[Any] = []
        """Objects made only for the streams: alive until the end, so that no id is used twice."""

    def anchors(self, anchored: dict[str, Any]) -> dict[int, tuple[int, Any]]:
        """Return the memo with which every pickler of this save begins."""
        if not self._anchors:
            self._anchors = {id(value): (n, value) for n, value in enumerate(anchored.values())}
        return self._anchors

    def looks(self, base: Any, view: Any) -> None:
        """Remember that ``view`` looks into the memory of ``base``."""
        if not self.final:
            self._lookers.setdefault(id(base), set()).add(id(view))

    def shares(self, base: Any) -> bool:
        """Is there another look into this memory, or does something hold the base itself?"""
        return len(self._lookers.get(id(base), ())) > 1 or self.is_reached(base)


class _Buffers:
    """Takes the buffers beside a stream. It does not know its pickler: a cycle would keep that, and all that
    it met, until the garbage collector comes.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.arrays: dict[int, tuple[Any, list[Any]]] = {}

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            known = self.arrays.pop(id(buffer), None)
            raw = buffer.raw()
            if raw.nbytes < IN_BAND_BYTES:
                return True
            self._stream.buffers.append(Buffer(raw, known[1] if known else None))
            return False
        except BufferError:
            return True  # not one contiguous piece: pickle copies it into the stream
        except Exception as error:
            raise Broken(error) from error


class StatePickler(pickle.Pickler):
    """Pickles one variable, or one component, after another into a `Stream`."""

    dispatch_table = ChainMap(  # noqa: RUF012 — pickle asks for an attribute
        {k: v for k, v in cp.Pickler._dispatch_table.items() if k not in _NOT_FROM_CLOUDPICKLE},
        __import__("copyreg").dispatch_table,
    )

    def __init__(self, stream: Stream, kinds: Kinds, anchored: dict[str, Any], record: Record) -> None:
        self._buffers = _Buffers(stream)
        super().__init__(stream, PROTOCOL, buffer_callback=self._buffers)
        self.stream, self.kinds, self.anchored, self.record = stream, kinds, anchored, record
        self.notes: list[str] = []
        self.rebuilt = False
        """Something in it is made anew rather than carried."""
        self.again = False
        """This stream cannot be used as it is: the object must be pickled once more."""
        self.by_value = False
        """Code of the notebook travels in this stream: loading it may run that code."""
        self.must_not_try = False
        """Loading this on trial would have effects beyond the process."""
        self.weak: dict[Any, Any] = {}
        """Weakly held objects that were met in the first look, by id; pieces of memory, by address."""
        self.memo = record.anchors(anchored)

    def reducer_override(self, obj: Any) -> Any:
        handler = self.kinds.handler(type(obj))
        if handler is None:
            return NotImplemented
        return handler(obj, self)

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    def anew(self, sentence: str) -> None:
        """Something is not carried but made anew, as good as it was."""
        self.rebuilt = True
        self.note(sentence)

    def array_buffer(self, view: Any, like: list[Any]) -> pickle.PickleBuffer:
        """Wrap memory that the loader shall read straight into an array made like this."""
        buffer = pickle.PickleBuffer(view)
        self._buffers.arrays[id(buffer)] = (buffer, like)
        return buffer

    def reached_nans(self) -> Container[int]:
        """Ids of the NaNs whose identity was minded."""
        return ()

    def reached_objects(self) -> dict[int, tuple[int, Any]]:
        """Everything with an identity that was met, by id, without the anchors."""
        memo: dict[int, tuple[int, Any]] = self.memo.copy()
        for ident in self.record.anchors(self.anchored):
            del memo[ident]
        return memo


class NanPickler(StatePickler):
    """The same for objects with a NaN somewhere: ``x in [x]`` is true for the very same NaN only."""

    def __init__(self, stream: Stream, kinds: Kinds, anchored: dict[str, Any], record: Record) -> None:
        super().__init__(stream, kinds, anchored, record)
        self.nans: dict[int, tuple[int, float]] = {}
        self._named: dict[int, str] = {}
        for module, name in (("math", "nan"), ("numpy", "nan")):
            found = getattr(sys.modules.get(module), name, None)
            if found is not None:
                self._named[id(found)] = f"{module}.{name}"

    def reached_nans(self) -> Container[int]:
        return self.nans

    def reached_objects(self) -> dict[int, tuple[int, Any]]:
        return super().reached_objects() | {ident: (0, nan) for ident, (_, nan) in self.nans.items()}

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is float and obj != obj:
            name = self._named.get(id(obj))
            if name is not None:
                return name
            return self.nans.setdefault(id(obj), (len(self.nans), obj))[0]
        return None


def reader(memory: memoryview) -> Any:
    """Return a file for the unpickler. A large one is not copied for it."""
    return _StreamReader(memory) if len(memory) > COPY_BYTES else io.BytesIO(memory)


class _StreamReader:
    def __init__(self, memory: memoryview) -> None:
        self._memory, self._at = memory, 0

    def read(self, size: int) -> bytes:
        start = self._at
        self._at = min(start + size, len(self._memory))
        return self._memory[start : self._at].tobytes()

    def readinto(self, room: Any) -> int:
        view = memoryview(room).cast("B")
        start = self._at
        self._at = min(start + view.nbytes, len(self._memory))
        view[: self._at - start] = self._memory[start : self._at]
        return self._at - start

    def readline(self) -> bytes:
        """Only protocols that we never write have lines."""
        found = bytearray()
        while (one := self.read(1)) and one != b"\n":
            found += one
        return bytes(found + one)


class StateUnpickler(pickle.Unpickler):
    """Loads streams; knows the anchors of this kernel."""

    def __init__(self, file: Any, buffers: Iterator[Any], anchored: dict[str, Any]) -> None:
        super().__init__(file, buffers=buffers)
        self._anchored = anchored
        self._nans: dict[int, float] = {}

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, int):
            return self._nans.setdefault(pid, float("nan"))
        if pid in ("math.nan", "numpy.nan"):
            module, name = pid.split(".")
            return getattr(__import__(module), name)
        found = self._anchored.get(pid)
        return Gone(str(pid)) if found is None else found
