"""``%gpustate``: the saved states of this notebook, from a cell.

Exists so that nobody has to leave the notebook, or have our extension, to save, restore and exclude.
Promises: what it cannot do is a sentence, not a traceback; input is taken for names, never run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

from gpulease.errors import GpuhubError
from gpusession.state import exclusions, replay_ledger

if TYPE_CHECKING:  # the kernel loads pydantic only when somebody asks for the list
    from gpulease.session import SnapshotInfo
    from gpusession.state.agent import StateAgent

SHORTEST_ID = 4
SHOWN_ID = 8

HELP = """\
%gpustate                       this help
%gpustate list                  saved states of this notebook, newest first
%gpustate save                  save the variables now
%gpustate restore               restore the newest saved state
%gpustate restore ID            restore that one (the beginning of its id is enough)
%gpustate restore [ID] NAME …   restore only these variables
%gpustate exclude NAME …        do not save these; a move leaves them behind
%gpustate exclude               say what is excluded
%gpustate include NAME …        save them again"""


@magics_class
class GpuStateMagics(Magics):  # type: ignore[misc]  # traitlets' classes are untyped
    """``meta``: what a manifest should say of this notebook."""

    def __init__(
        self, shell: Any, agent: StateAgent, folder: Path, meta: Callable[[], dict[str, Any]]
    ) -> None:
        super().__init__(shell)
        self._agent, self._folder, self._meta = agent, folder, meta

    @line_magic  # type: ignore[untyped-decorator]
    def gpustate(self, line: str) -> None:
        """Save, restore and exclude variables. `%gpustate help` says how."""
        word, *rest = line.split() or ["help"]
        does = {
            "help": self._help,
            "list": self._list,
            "save": self._save,
            "restore": self._restore,
            "exclude": self._exclude,
            "include": self._include,
        }.get(word)
        if does is None:
            raise UsageError(f"There is no `%gpustate {word[:40]}`. `%gpustate help` lists what there is.")
        try:
            does(rest)
        except GpuhubError as error:
            raise UsageError(f"{error.message} {error.hint or ''}".strip()) from None

    def _help(self, words: Sequence[str]) -> None:
        print(HELP)

    # --- saved states

    def _all(self) -> Sequence[SnapshotInfo]:
        from gpusession.state.store import SnapshotStore

        return SnapshotStore(self._folder).list()

    def _own(self) -> Sequence[SnapshotInfo]:
        meta = self._meta()
        return [
            one
            for one in self._all()
            if one.kernel == meta["kernel"] or (one.notebook and one.notebook == meta["notebook"])
        ]

    def _list(self, words: Sequence[str]) -> None:
        _nothing_more("list", words)
        found = self._own()
        if not found:
            print("Nothing of this notebook has been saved yet. To save it now: %gpustate save")
        for one in found:
            what = f"{one.kept} kept, {one.left} left" if one.complete else one.problem or "unfinished"
            facts = [
                one.id[:SHOWN_ID],
                _when(one.created_at),
                f"{one.reason:11}",
                f"{_size(one.bytes):>9}",
                what,
            ]
            print("  ".join(facts))

    def _save(self, words: Sequence[str]) -> None:
        from gpusession.state.store import SnapshotStore

        _nothing_more("save", words)
        content = {
            "folder": str(self._folder),
            "meta": {**self._meta(), "reason": "manual"},
            "accept": "all",
        }
        saved = self._agent.handle("save", content, lambda done, total: None)
        SnapshotStore(self._folder).prune()
        left = [one for one in saved["verdicts"] if one["verdict"] == "left"]
        size, new = _size(saved["bytes"]), _size(saved["written"])
        print(f"Saved as {saved['snapshot'][:SHOWN_ID]}: {size}, {new} of it new.")
        _say_left(left)

    def _restore(self, words: Sequence[str]) -> None:
        found, names = self._chosen(words)
        if not found.complete:
            raise UsageError(f"{found.id[:SHOWN_ID]} cannot be restored. {found.problem or ''}")
        content = {"folder": str(self._folder / found.id), "names": names or None}
        loaded = self._agent.handle("load", content, lambda done, total: None)
        replay_ledger.of(self.shell).overlook()
        left = [one for one in loaded["verdicts"] if one["verdict"] == "left"]
        count = len(loaded["verdicts"]) - len(left)
        print(f"Restored {count} {'variable' if count == 1 else 'variables'} of {_when(found.created_at)}.")
        _say_left(left)

    def _chosen(self, words: Sequence[str]) -> tuple[SnapshotInfo, list[str]]:
        """The saved state that is meant, and the names. The first word is an id if it begins one."""
        if words and len(words[0]) >= SHORTEST_ID:
            meant = [one for one in self._all() if one.id.startswith(words[0])]
            if len(meant) > 1:
                raise UsageError(f"{len(meant)} saved states begin with {words[0]}. Write more of the id.")
            if meant:
                return meant[0], [*words[1:]]
        whole = [one for one in self._own() if one.complete]
        if not whole:
            raise UsageError("There is no saved state of this notebook.")
        return whole[0], [*words]

    # --- exclusions

    def _exclude(self, words: Sequence[str]) -> None:
        excluded = exclusions.of(self.shell)
        for name in _names(words):
            if len(excluded) >= exclusions.MOST:
                raise UsageError(f"No more than {exclusions.MOST} names can be excluded.")
            excluded.add(name)
        print(f"Not saved: {', '.join(sorted(excluded))}." if excluded else "Nothing is excluded.")

    def _include(self, words: Sequence[str]) -> None:
        if not words:
            raise UsageError("Which variable? %gpustate include NAME")
        excluded = exclusions.of(self.shell)
        for name in _names(words):
            if name not in excluded:
                raise UsageError(f"{name} is not excluded.")
            excluded.discard(name)
        print(f"Saved again: {', '.join(words)}.")


def _names(words: Sequence[str]) -> Sequence[str]:
    wrong = [one for one in words if not one.isidentifier()]
    if wrong:
        raise UsageError(f"{wrong[0][:60]} is no name of a variable.")
    return words


def _nothing_more(word: str, words: Sequence[str]) -> None:
    if words:
        raise UsageError(f"`%gpustate {word}` takes nothing more.")


def _say_left(left: Sequence[dict[str, Any]]) -> None:
    for one in left[:20]:
        print(
            f"  not saved: {one['name']} ({one['type']}). {one['reason'] or ''} {one['hint'] or ''}".rstrip()
        )
    if len(left) > 20:
        print(f"  … and {len(left) - 20} more")


def _when(at: datetime) -> str:
    there, now = at.astimezone(), datetime.now(UTC).astimezone()
    return there.strftime("%H:%M:%S" if there.date() == now.date() else "%d %b %H:%M")


def _size(count: int) -> str:
    if count >= 100_000_000:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"
