"""The format of a snapshot, version 2 (and version 1, which is still read).

A snapshot is a folder (mode 0700) named by its id, with files of mode 0600:

* ``manifest.json``: what is in it, one JSON object. Its first key, ``digest``, is the SHA-256 of the
  text without that key.
* ``p<N>.bin``: a *piece*, one large piece of memory as it was. ``pieces`` says how each is digested and
  its digest (`gpusession.state.digests`). A piece that did not change since the last save is the same
  file as in that snapshot, under a second name (a hard link): a folder is always whole by itself, so
  deleting another snapshot, or dying in the middle of that, cannot harm it, and the file system frees
  a file with its last name. Where there are no hard links, pieces are written again.
* ``small.bin``: everything that is too small for a file of its own, one after another.

A component has a *body*: a pickle stream (protocol 5: first the anchors, then one pickle for each of its
variables) followed by its smaller buffers, each at a multiple of 64 bytes. The body is a part of
``small.bin``, with the SHA-256 of that part, or a piece. Each larger buffer is a piece. Keys of variables
are ``kind:name`` with the kinds ``var`` (a variable), ``out`` (a result in ``Out``) and ``set`` (a setting
beside the variables).

Version 1 had no pieces: all buffers lay in the bodies, and large bodies in files ``c<N>.bin``; its
``digest`` is the SHA-256 of the rest as canonical JSON.

Promises: `parse` never raises anything but `Damaged`, whatever the bytes are; nothing here unpickles.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gpusession.state.digests import ALGORITHMS, LEAF_LIMIT_BYTES, Digesting

FORMAT = 2
NAME = "manifest.json"
SEAL = b'{"digest":"%s",'
SEAL_BYTES = len(SEAL % bytes(64))
ALIGN = 64
MAX_BYTES = 64 << 20
SEED = re.compile(r"^[0-9a-f]{1,16}$")
ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
SMALL = "small.bin"
FILE = re.compile(r"^(small|[cp][0-9]{1,9})\.bin$")


class Damaged(Exception):
    """This is no whole snapshot. The text is a sentence for the person."""


@dataclass
class BufferPart:
    """Where a buffer lies, and what the loader makes of it."""

    offset: int
    """In the body of its component; 0 for a piece."""
    nbytes: int
    writable: bool
    array: list[Any] | None
    """[dtype, shape, order] of a NumPy array; None: plain memory."""
    piece: str | None = None
    """The name of the file that is this buffer; None: it lies in the body."""


@dataclass
class PieceDigest:
    """How a piece is digested, and its digest. The seed is a hexadecimal number."""

    algorithm: str
    seed: str
    leaf: int
    digest: str

    @property
    def digesting(self) -> Digesting:
        return Digesting(self.algorithm, int(self.seed, 16), self.leaf)


@dataclass
class ComponentPart:
    """Where a component's body lies."""

    keys: list[str]
    file: str
    offset: int
    length: int
    stream: int
    """Bytes of the pickle stream, at the start."""
    buffers: list[BufferPart]
    sha256: str
    """Of the body; empty if the body is a piece."""
    rank: int
    """The order of loading: plain data, then functions and classes, then what may run them."""

    @property
    def nbytes(self) -> int:
        """With the buffers that are pieces."""
        return self.length + sum(one.nbytes for one in self.buffers if one.piece is not None)


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
    pieces: dict[str, PieceDigest] = field(default_factory=dict)
    execution_count: int = 1
    format: int = FORMAT


def dump(manifest: Manifest) -> bytes:
    components = [
        {**vars(one), "buffers": [vars(buffer) for buffer in one.buffers]} for one in manifest.components
    ]
    pieces = {name: vars(one) for name, one in manifest.pieces.items()}
    body = {**vars(manifest), "components": components, "pieces": pieces}
    return seal(body)


def seal(body: dict[str, Any]) -> bytes:
    """Return the text of a list of contents, with its digest at the start."""
    # Without indentation: json writes that in C, ten times as fast.
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=True).encode()
    return SEAL % hashlib.sha256(text).hexdigest().encode() + text[1:]


def _is_sealed(data: bytes, body: dict[str, Any]) -> bool:
    """Does the digest fit? ``body`` is without it."""
    digest = body.pop("digest", None)
    if body.get("format") == 1:
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return bool(digest == hashlib.sha256(canonical.encode()).hexdigest())
    found = hashlib.sha256(b"{" + data[SEAL_BYTES:]).hexdigest()
    return digest == found and data[:SEAL_BYTES] == SEAL % found.encode()


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
    try:
        if not _is_sealed(data, body):
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
    pieces = {}
    for name, one in need(body.get("pieces", {}), dict).items():
        piece = PieceDigest(**need(one, dict))
        need(piece.algorithm, str, lambda text: text in ALGORITHMS)
        need(piece.seed, str, lambda text: bool(SEED.match(text)))
        need(count(piece.leaf), int, lambda n: 0 < n <= LEAF_LIMIT_BYTES)
        need(piece.digest, str)
        need(name, str, lambda text: text in files)
        pieces[name] = piece
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
        if part.file in pieces and (part.offset, part.length) != (0, files[part.file]):
            raise Damaged("Its list of contents is damaged.")
        for buffer in part.buffers:
            need(buffer.writable, bool)
            room = part.length
            if buffer.piece is not None:
                room = files[need(buffer.piece, str, lambda text: text in pieces)]
                if (buffer.offset, buffer.nbytes) != (0, room):
                    raise Damaged("Its list of contents is damaged.")
            if count(buffer.offset) + count(buffer.nbytes) > room:
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
    return Manifest(**{**body, "components": components, "files": files, "pieces": pieces})
