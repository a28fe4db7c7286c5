"""The saved states of one person, as his session sees them: list, save, restore, delete, offer.

Exists so that everything that concerns files of saved states is in one place beside the kernels they
belong to. Promises: files are read and deleted off the session's loop; after each change the limits are
kept and the sizes counted anew; only what is whole is restored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from gpulease import errors
from gpulease.session import (
    RebuildPlan,
    RebuildRequest,
    RebuildResult,
    RestoreResult,
    SnapshotComparison,
    SnapshotInfo,
)
from gpusession.kernel import Kernel
from gpusession.offers import Offers
from gpusession.state.comparison import differences

NOTEBOOK_WAITS_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Between two looks for the notebook of a kernel that has just started: on a busy machine it takes long."""


class Store(Protocol):
    """The snapshots on the person's own storage (`gpusession.state.store`)."""

    folder: Path
    keep_per_notebook: int
    keep_bytes: float

    def list(self) -> list[SnapshotInfo]:
        """Newest first; damaged ones with ``complete`` False. Reads files: call it off the loop."""

    def delete(self, snapshot_id: str) -> None:
        """Raises NotFound."""

    def prune(self) -> Sequence[str]:
        """Delete what exceeds the person's limits, never a notebook's newest; return the ids."""

    def total_bytes(self) -> int:
        """What all of them take on the storage; what several share counts once."""


class SavedStates:
    """All coroutines run on the session's loop. ``changed``: something about the storage is different."""

    def __init__(self, store: Store, kernels: Mapping[str, Kernel], changed: Callable[[], None]) -> None:
        self._store, self._kernels, self._changed = store, kernels, changed
        self._offers = Offers(store.folder)
        self.folder = store.folder
        self.limit_bytes, self.per_notebook = int(store.keep_bytes), store.keep_per_notebook
        self.total_bytes = 0
        self._seen = 0
        """When the folder last changed, as of the last count."""

    async def list(self) -> list[SnapshotInfo]:
        return await asyncio.to_thread(self._store.list)

    async def of_kernel(self, kernel_id: str, since: datetime) -> Sequence[SnapshotInfo]:
        found = [
            one
            for one in await self.list()
            if one.kernel == kernel_id and one.complete and one.created_at >= since
        ]
        return sorted(found, key=lambda one: one.created_at, reverse=True)

    async def find(self, snapshot_id: str) -> SnapshotInfo:
        """Raises NotFound."""
        for one in await self.list():
            if one.id == snapshot_id:
                return one
        raise errors.NotFound("This saved state is not there any more.")

    async def _whole(self, snapshot_id: str) -> SnapshotInfo:
        """Raises NotFound, SnapshotUnusable."""
        info = await self.find(snapshot_id)
        if not info.complete:
            raise errors.SnapshotUnusable(info.problem or "This saved state is damaged or unfinished.")
        return info

    def _kernel(self, kernel_id: str) -> Kernel:
        try:
            return self._kernels[kernel_id]
        except KeyError:
            raise errors.NotFound("This server has no such notebook kernel.") from None

    async def save(self, kernel_id: str, *, consent: bool = True) -> SnapshotInfo:
        saved = await self._kernel(kernel_id).save("manual", "all" if consent else "none")
        await self.measure()
        return await self.find(str(saved["snapshot"]))

    async def restore(self, kernel_id: str, snapshot_id: str, names: Sequence[str] | None) -> RestoreResult:
        kernel = self._kernel(kernel_id)
        await self._whole(snapshot_id)
        result = await kernel.restore(snapshot_id, None if names is None else [*names])
        self._offers.settle([snapshot_id], [one.id for one in await self.list()])
        return result

    async def compare(self, first: str, second: str) -> SnapshotComparison:
        """Raises NotFound, SnapshotUnusable."""
        folders = [self.folder / (await self._whole(one)).id for one in (first, second)]
        found = await asyncio.to_thread(differences, *folders)
        return SnapshotComparison.model_validate({"first": first, "second": second, "variables": found})

    async def rebuild_plan(self, kernel_id: str, names: Sequence[str] | None) -> RebuildPlan:
        return await self._kernel(kernel_id).rebuild_plan(None if names is None else [*names])

    async def rebuild(self, kernel_id: str, wish: RebuildRequest) -> RebuildResult:
        return await self._kernel(kernel_id).rebuild(wish)

    async def look(self) -> None:
        """Somebody else may have saved (a cell, the worker): then count anew."""
        if await asyncio.to_thread(self._changed_at) != self._seen:
            await self.measure()

    def _changed_at(self) -> int:
        with contextlib.suppress(OSError):
            return self.folder.stat().st_mtime_ns
        return 0

    async def delete(self, snapshot_id: str) -> None:
        """Raises NotFound."""
        await asyncio.to_thread(self._store.delete, snapshot_id)
        await self.measure()

    async def measure(self) -> None:
        """After a save: make room, and count what is there."""
        await asyncio.to_thread(self._store.prune)
        self._seen = await asyncio.to_thread(self._changed_at)
        self.total_bytes = await asyncio.to_thread(self._store.total_bytes)
        self._changed()

    # --- offers to fresh kernels

    async def offer(self, kernel: Kernel) -> bool:
        """Look for a saved state that a fresh kernel of this notebook should offer; True: there is one."""
        if not kernel.carries_state:
            return False
        notebook = None
        for wait_seconds in NOTEBOOK_WAITS_SECONDS:
            # Jupyter ties a kernel to its notebook only after the kernel has started.
            await asyncio.sleep(wait_seconds)
            notebook = await kernel.find_notebook()
            if notebook:
                break
        found = self._offers.newest(await self.list(), notebook, self._kernels) if notebook else None
        if found is None:
            return False
        kernel.notices.offer(found)
        return True

    def settle(self, snapshot_ids: Sequence[str]) -> None:
        """The person has answered these offers."""
        self._offers.settle(snapshot_ids)

    async def settle_kernel(self, kernel_id: str) -> None:
        """The person has shut this kernel down: what it saved need not be offered."""
        self._offers.settle([one.id for one in await self.list() if one.kernel == kernel_id])
