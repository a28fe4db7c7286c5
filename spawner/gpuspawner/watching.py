"""KubeSpawner's view of the cluster, without its blind spots (seen in 7.0 and 7.1).

KubeSpawner judges whether servers run by lists that it keeps by watching (its reflectors). Three things
there would make a hub believe what is not so; each is put right here, and only here:

* A watch that fails for about a minute logs once and ends. The hub then judges by an old list for ever,
  or, with a namespace per person, exits. `UntiringPods` and `UntiringEvents` begin anew instead.
* A first list that fails leaves a reflector behind that is empty and will never be filled: everybody's
  server then counts as gone, and its token is revoked. `alive` finds such a one; `GpuKubeSpawner` drops it.
* An event without a time (both are optional in the API) breaks the sorting, and with it every start.
"""

from __future__ import annotations

import asyncio
from typing import Any

from kubespawner.reflector import ResourceReflector
from kubespawner.spawner import EventReflector, PodReflector

AGAIN_SECONDS = 10.0


class _Untiring(ResourceReflector):  # type: ignore[misc]  # kubespawner is untyped
    """A reflector that does not give up."""

    again_seconds = AGAIN_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["on_failure"] = None  # it would end the hub
        super().__init__(*args, **kwargs)

    async def _watch_and_update(self) -> None:
        while True:
            await super()._watch_and_update()
            if self._stopping:
                return
            self.log.warning("The watch on %s ended; it begins anew", self.kind)
            await asyncio.sleep(self.again_seconds)


class UntiringPods(_Untiring, PodReflector):  # type: ignore[misc]
    """The servers' pods."""


class UntiringEvents(_Untiring, EventReflector):  # type: ignore[misc]
    """What the cluster says about them."""

    @property
    def events(self) -> list[dict[str, Any]]:
        return sorted(self.resources.values(), key=when)


UNTIRING = {PodReflector: UntiringPods, EventReflector: UntiringEvents}


def alive(reflector: ResourceReflector) -> bool:
    """Whether it is being filled: its first list is on the way, or came and is being followed."""
    first = reflector.first_load_future
    if first.done() and (first.cancelled() or first.exception() is not None):
        return False
    return reflector.watch_task is None or not reflector.watch_task.done()


def when(event: dict[str, Any]) -> str:
    """Return the moment of an event, for sorting."""
    return str(
        event.get("lastTimestamp")
        or event.get("eventTime")
        or (event.get("metadata") or {}).get("creationTimestamp")
        or ""
    )
