"""Which variables belong together: those that share an object are saved and loaded as one.

Every variable is pickled once to look at it. What it reached is in the pickler's memo: two variables
that reached the same object, other than a plain value, are one component. A variable that fails in
this look is left; its neighbours are not, unless they hold the bad object themselves. The look's
stream is kept when it can be used as it is: most variables are pickled only once.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
import pickle
import traceback
import types
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gpusession.state.deep import with_room
from gpusession.state.patience import Patience, TookTooLong
from gpusession.state.pickling import Broken, Kinds, NanPickler, Record, StatePickler, Stream
from gpusession.state.reach import LargeReach
from gpusession.state.refusals import AGAIN, Refused

KEEP_BYTES = 64 << 20
"""A stream up to this size is kept after the look; a larger one is made again while it is written."""
LARGE_BYTES = 1 << 20
"""From here on it pays to ask the largest variable's pickler instead of copying its memo."""
STREAM_LIMIT_BYTES = 16 << 30

_VALUES = (
    str,
    bytes,
    int,
    float,
    complex,
    bool,
    range,
    slice,
    type(None),
    types.CodeType,
    types.ModuleType,
    decimal.Decimal,
    fractions.Fraction,
    datetime.date,
    datetime.datetime,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    uuid.UUID,
    pathlib.PurePath,
)
_VALUE_TYPES = frozenset(_VALUES) | {pathlib.PosixPath, pathlib.PurePosixPath}


@dataclass
class Left:
    """Why a variable stays behind."""

    reason: str
    hint: str


@dataclass
class Look:
    """What one variable turned out to be."""

    name: str
    value: Any
    stream: Stream
    pickler: StatePickler
    reached: Mapping[int, tuple[int, Any]] = field(default_factory=dict)
    weak: Mapping[Any, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rebuilt: bool = False
    again: bool = False
    by_value: bool = False
    with_nan: bool = False
    deep: bool = False
    bytes: int = 0

    @property
    def usable(self) -> bool:
        """Can what was pickled in the look be written as it is?"""
        return not self.again and self.stream.chunks is not None


@dataclass
class Component:
    """Variables that are saved together, in the order in which they are pickled."""

    looks: list[Look]

    @property
    def names(self) -> list[str]:
        return [look.name for look in self.looks]

    @property
    def estimated_bytes(self) -> int:
        return max(look.bytes for look in self.looks)


class Pickled:
    """Pickles values under all the precautions."""

    def __init__(self, kinds: Kinds, anchored: dict[str, Any], record: Record, patience: Patience) -> None:
        self.kinds, self.anchored, self.record, self.patience = kinds, anchored, record, patience

    def go_on(self, lead: Look, values: list[Any]) -> None:
        """Pickle more values into a look's own stream: what they share with it is there already."""
        with self.patience.limited():
            _dump(lead.pickler, values)

    def dump(
        self, values: list[Any], keep_bytes: int, *, with_nan: bool = False, deep: bool = False
    ) -> tuple[Stream, StatePickler, bool, bool]:
        """Return stream, pickler, whether NaNs were minded, whether it needed the large stack.

        Raises Left's material: `Refused`, or whatever the objects raise; `Broken` for what is ours.
        """
        while True:
            stream = Stream(keep_bytes, self._alive)
            make = NanPickler if with_nan else StatePickler
            pickler = make(stream, self.kinds, self.anchored, self.record)
            try:
                if deep:
                    with_room(lambda p=pickler: _dump(p, values), self.patience.seconds * 3)  # type: ignore[misc]
                else:
                    with self.patience.limited():
                        _dump(pickler, values)
            except RecursionError:
                if deep:
                    raise Refused("It is nested too deeply to be saved.") from None
                deep = True
                continue
            if stream.has_nan and not with_nan:
                with_nan = True
                continue
            return stream, pickler, with_nan, deep

    def _alive(self, size: int) -> None:
        self.patience.alive(size)


def _dump(pickler: StatePickler, values: list[Any]) -> None:
    for value in values:
        pickler.dump(value)
        if pickler.stream.nbytes > STREAM_LIMIT_BYTES:
            raise Refused("It is too large to be saved.")


def look(name: str, value: Any, pickled: Pickled) -> Look | Left:
    """Pickle one variable to see what it reaches."""
    try:
        stream, pickler, with_nan, deep = pickled.dump([value], KEEP_BYTES)
    except Broken:
        raise
    except (Exception, TookTooLong) as error:  # noqa: BLE001 — it becomes a verdict
        return why_left(error)
    found = Look(
        name, value, stream, pickler, weak=pickler.weak, notes=pickler.notes, with_nan=with_nan, deep=deep
    )
    found.bytes = stream.total_bytes
    found.again, found.by_value, found.rebuilt = pickler.again, pickler.by_value, pickler.rebuilt
    return found


def why_left(error: BaseException) -> Left:
    """Turn what pickling raised into a sentence."""
    if isinstance(error, Refused):
        return Left(error.reason, error.hint)
    if isinstance(error, TookTooLong):
        return Left("It takes too long to say what it consists of.", AGAIN)
    if isinstance(error, MemoryError):
        return Left("There is not enough memory to save it.", "Free some memory, then save again.")
    text = " ".join(str(error).split())[:200] or type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, TypeError | pickle.PicklingError) and "pickle" in text:
        return Left(f"Python cannot save it: {text}.", AGAIN)
    asked = frames[-1].name if frames else "its code"
    return Left(f"It failed when asked for its state: {type(error).__name__}: {text} (in {asked}).", AGAIN)


class _Groups:
    """Union and find over variables."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, one: int) -> int:
        root = one
        while self._parent.setdefault(root, root) != root:
            root = self._parent[root]
        while self._parent[one] != root:
            self._parent[one], one = root, self._parent[one]
        return root

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low


class Survey:
    """Looks at every variable and says which belong together."""

    def __init__(self, pickled: Pickled) -> None:
        self._pickled = pickled
        self._links = _Linking(pickled.kinds)
        self.left: dict[str, Left] = {}
        self.looks: list[Look] = []
        self._groups = _Groups()
        self._owner: dict[int, int] = {}
        self._looked_for: dict[Any, int] = {}
        self._large: LargeReach | None = None

    def run(self, variables: Iterable[tuple[str, Any]]) -> None:
        roots: dict[int, Look] = {}
        for name, value in variables:
            same = roots.get(id(value))
            if same is not None and type(value) not in _VALUE_TYPES:
                reached = {id(value): (0, value)}
                self.looks.append(replace(same, name=name, stream=Stream(0), reached=reached, again=True))
                continue
            found = look(name, value, self._pickled)
            if isinstance(found, Left):
                self.left[name] = found
            else:
                roots[id(value)] = found
                self.looks.append(found)
        largest = max(self.looks, key=lambda one: one.stream.nbytes, default=None)
        if largest is not None and largest.stream.nbytes < LARGE_BYTES:
            largest = None
        for index, found in enumerate(self.looks):
            if found is not largest:
                self._join_sharing(index, found)
        if largest is not None:
            self._join_largest(self.looks.index(largest), largest)
        self._settle_weak()

    def _join_sharing(self, index: int, found: Look) -> None:
        if not found.reached and (type(found.value) not in _VALUE_TYPES or found.with_nan):
            found.reached = found.pickler.reached_objects()
        reached = found.reached
        for ident in self._owner.keys() & reached.keys():
            if self._links(reached[ident][1]):
                self._groups.join(self._owner[ident], index)
        if len(reached) > len(self._owner):
            fresh = dict.fromkeys(reached, index)
            fresh.update(self._owner)
            self._owner = fresh
        else:
            # Not by subtracting views: that walks over all owners for each variable.
            for ident in reached:
                self._owner.setdefault(ident, index)

    def _join_largest(self, index: int, largest: Look) -> None:
        self._large = LargeReach(largest.pickler)
        nans = largest.pickler.reached_nans()
        for other, found in enumerate(self.looks):
            if found is largest or self._groups.find(other) == self._groups.find(index):
                continue
            for ident, (_, thing) in found.reached.items():
                if self._links(thing) and (ident in nans or self._large.holds(thing)):
                    self._groups.join(other, index)
                    break
        self._largest_index = index

    def _is_reached(self, thing: Any) -> bool:
        return id(thing) in self._owner or (self._large is not None and self._large.holds(thing))

    def _settle_weak(self) -> None:
        self._pickled.record.is_reached = self._is_reached
        for index, found in enumerate(self.looks):
            for ident, thing in found.weak.items():
                self._groups.join(self._looked_for.setdefault(ident, index), index)
                if ident in self._owner:
                    self._groups.join(self._owner[ident], index)
                elif self._large is not None and self._large.holds(thing):
                    self._groups.join(self._largest_index, index)

    def components(self) -> list[Component]:
        """In the order in which their first variables came; classes and functions first in each."""
        members: dict[int, list[Look]] = {}
        for index, found in enumerate(self.looks):
            members.setdefault(self._groups.find(index), []).append(found)
        return [Component(sorted(looks, key=_order)) for looks in members.values()]


def _order(found: Look) -> int:
    if isinstance(found.value, type):
        return 0
    return 1 if callable(found.value) else 2


class _Linking:
    """Does sharing this object tie two variables together?"""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds

    def __call__(self, thing: Any) -> bool:
        kind = type(thing)
        if kind in _VALUE_TYPES:
            # The one float that is met here is a NaN: its identity counts.
            return kind is float
        if kind is types.BuiltinFunctionType:
            return False  # what it is bound to was met by itself
        if kind is tuple or kind is frozenset:
            return not all(type(one) in _VALUE_TYPES for one in thing)
        if issubclass(kind, type | types.FunctionType):
            return not self._kinds.by_reference(thing)
        if str(kind.__module__).startswith("numpy") and kind.__name__.endswith(("DType", "dtype")):
            return False
        return not self._kinds.named(thing)
