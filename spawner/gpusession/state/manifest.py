"""The format of a snapshot, version 1.

A snapshot is a folder (mode 0700) named by its id, with files of mode 0600:

* ``manifest.json``: what is in it. The key ``digest`` is the SHA-256 of the rest, as canonical JSON.
* ``small.bin`` and ``c<N>.bin``: the components, one after another without gaps; a large one has a
  file of its own.

A component is a pickle stream (protocol 5: first the anchors, then one pickle for each of its
variables) followed by its buffers, each at a multiple of 64 bytes; its digest is the SHA-256 of
all of that, padding included. Keys of variables are ``kind:name`` with the kinds ``var`` (a
variable), ``out`` (a result in ``Out``) and ``set`` (a setting beside the variables).

Promises: `parse` never raises anything but `Damaged`, whatever the bytes are; nothing here unpickles.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1
NAME = "manifest.json"
ALIGN = 64
MAX_BYTES = 64 << 20
ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
FILE = re.compile(r"^(small|c[0-9]{1,9})\.bin$")


class Damaged(Exception):
    """This is no whole snapshot. The text is a sentence for the person."""


@dataclass
class BufferPart:
    """Where a buffer lies in its component, and what the loader makes of it."""

    offset: int
    nbytes: int
    writable: bool
    array: list[Any] | None
    """[dtype, shape, order] of a NumPy array; None: plain memory."""


@dataclass
class ComponentPart:
    """Where a component lies."""

    keys: list[str]
    file: str
    offset: int
    length: int
    stream: int
    """Bytes of the pickle stream, at the start."""
    buffers: list[BufferPart]
    sha256: str
    rank: int
    """The order of loading: plain data, then functions and classes, then what may run them."""


@dataclass
class Manifest:
    """All that can be told without loading."""

    id: str
    kernel: str
    notebook: str | None
    name: str
    created_at: str
    reason: str
    python: str
    libraries: dict[str, str]
    bytes: int
    verdicts: list[dict[str, Any]]
    components: list[ComponentPart] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    execution_count: int = 1
    format: int = FORMAT


def dump(manifest: Manifest) -> bytes:
    components = [
        {**vars(one), "buffers": [vars(buffer) for buffer in one.buffers]} for one in manifest.components
    ]
    body = {**vars(manifest), "components": components}
    return _canonical({**body, "digest": _digest(body)})


def _canonical(body: dict[str, Any]) -> bytes:
    # Without indentation: json writes that in C, ten times as fast.
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(body)).hexdigest()


def parse(data: bytes, running_python: str | None = None) -> Manifest:
    """Return the checked manifest. Raises Damaged; `OtherPython` if ``running_python`` does not fit it."""
    if len(data) > MAX_BYTES:
        raise Damaged("Its list of contents is too large.")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Damaged("Its list of contents cannot be read.") from error
    if not isinstance(body, dict):
        raise Damaged("Its list of contents cannot be read.")
    if type(body.get("format")) is int and body["format"] > FORMAT:
        raise Damaged("It was saved by a newer version of this program.")
    python = body.get("python")
    if running_python is not None and isinstance(python, str) and not same_python(python, running_python):
        raise OtherPython(python)
    digest = body.pop("digest", None)
    try:
        if digest != _digest(body):
            raise Damaged("Its list of contents is damaged.")
        return _checked(body)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Damaged("Its list of contents is damaged.") from error


class OtherPython(Damaged):
    """It was saved by a Python whose objects this one cannot load."""

    def __init__(self, python: str) -> None:
        super().__init__(f"It was saved by Python {python[:20]}.")
        self.python = python[:20]


def same_python(one: str, other: str) -> bool:
    return one.split(".")[:2] == other.split(".")[:2]


def _checked(body: dict[str, Any]) -> Manifest:
    def need(what: Any, kind: type | tuple[type, ...], test: Callable[[Any], bool] = lambda _: True) -> Any:
        if (isinstance(what, bool) and kind is not bool) or not isinstance(what, kind) or not test(what):
            raise Damaged("Its list of contents is damaged.")
        return what

    def count(what: Any) -> int:
        return int(need(what, int, lambda n: n >= 0))

    files = {
        need(name, str, lambda text: bool(FILE.match(text))): count(size)
        for name, size in need(body["files"], dict).items()
    }
    components = []
    for one in need(body["components"], list):
        part = ComponentPart(**need(one, dict))
        part.buffers = [BufferPart(**need(buffer, dict)) for buffer in need(part.buffers, list)]
        need(part.keys, list)
        for key in part.keys:
            need(key, str)
        need(part.sha256, str)
        count(part.rank)
        if count(part.offset) + count(part.length) > files[need(part.file, str)]:
            raise Damaged("Its list of contents is damaged.")
        if count(part.stream) > part.length:
            raise Damaged("Its list of contents is damaged.")
        for buffer in part.buffers:
            need(buffer.writable, bool)
            if count(buffer.offset) + count(buffer.nbytes) > part.length:
                raise Damaged("Its list of contents is damaged.")
        components.append(part)
    for verdict in need(body["verdicts"], list):
        need(verdict, dict)
    for name in ("kernel", "name", "created_at", "reason", "python"):
        need(body[name], str)
    need(body["id"], str, lambda text: bool(ID.match(text)))
    need(body["notebook"], (str, type(None)))
    need(body["libraries"], dict)
    count(body["bytes"])
    count(body["execution_count"])
    return Manifest(**{**body, "components": components, "files": files})
