"""What the broker knows at this moment: live leases, offers, workers, samples; nothing that must survive.

The store is the truth about leases, the backend about workers, telemetry about use. The board holds
their last words so that decisions and answers do not read everything anew, and turns them into the
snapshot that `gpuhub.core.policy` decides on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gpuhub.backends.base import Phase, PoolOffer, WorkerSeen
from gpuhub.broker.clock import Clock, Countdowns
from gpuhub.broker.presence import Presence
from gpuhub.broker.settings import PolicySettings
from gpuhub.core.idleness import STALE_SECONDS, Look, Silence
from gpuhub.core.lease import DeviceInfo, LeaseRecord
from gpuhub.core.ordering import Place, places
from gpuhub.core.quota import WEEK, Span, WeekUse, spans_of
from gpuhub.core.rules import Rules
from gpuhub.core.snapshot import Held, PoolNow, Queued, Snapshot, WorkerNow, WorkerPhase
from gpuhub.telemetry.base import Sample
from gpulease.states import Observed, Wanted

CELL_HINT_SECONDS = 90.0
"""How long a server's word that a cell runs is believed: it repeats it every half minute."""

_PHASES: dict[Phase, WorkerPhase] = {
    Phase.STARTING: "starting",
    Phase.READY: "ready",
    Phase.STOPPING: "stopping",
    Phase.EXITED: "exited",
}


class Board:
    """The broker's view of now. Belongs to one event loop; nothing here waits."""

    def __init__(self, policy: PolicySettings, clock: Clock, presence: Presence) -> None:
        self.policy = policy
        self._clock = clock
        self._presence = presence
        self.countdowns = Countdowns(clock)
        self.live: dict[str, LeaseRecord] = {}
        self._by_user: dict[str, set[str]] = defaultdict(set)
        self.offers: dict[str, PoolOffer] = {}
        self.offers_known = False
        """Whether the backend's last answer about its GPUs can be trusted now."""
        self.typical: dict[str, float | None] = {}
        self.workers: Mapping[str, WorkerSeen] = {}
        self._workers_at = 0.0
        self._missing_since: dict[str, float] = {}
        self.stop_told: dict[str, float] = {}
        self.refusals: dict[str, str] = {}
        """By lease: why the place did not take its worker, when it was asked last."""
        self._room_at: dict[str, float] = {}
        """By lease whose worker starts: since when it has room, as far as this broker saw."""
        self.pending_orders: set[str] = set()
        self.silences: dict[str, Silence] = {}
        self._samples: dict[str, tuple[float, Sample]] = {}
        self._cells: dict[str, float] = {}
        self._closed_spans: dict[str, list[Span]] = defaultdict(list)
        self._rules: dict[tuple[tuple[str, ...], str], Rules] = {}
        self.places: dict[str, Place] = {}
        self._pools: dict[str, PoolNow] | None = None
        self._waiting: Counter[str] | None = None

    # --- leases

    def take_history(self, spans: Mapping[str, Sequence[Span]]) -> None:
        """Take what was held and has ended within the last seven days, by person."""
        self._closed_spans = defaultdict(list, {user: list(found) for user, found in spans.items()})

    def take(self, record: LeaseRecord) -> None:
        """Take the newest record of a lease."""
        known = self.live.get(record.id)
        if known is not None and known.revision > record.revision:
            return
        self._changed()
        if record.gone:
            self._drop(record)
            return
        self.live[record.id] = record
        self._by_user[record.user].add(record.id)
        if record.observed is Observed.READY:
            silence = self.silences.get(record.id)
            if silence is None or silence.device_ids != record.device_ids:
                self.silences[record.id] = Silence(record.device_ids)

    def _drop(self, record: LeaseRecord) -> None:
        if self.live.pop(record.id, None) is not None and record.granted_at is not None:
            self._closed_spans[record.user] += spans_of([record])
        own = self._by_user[record.user]
        own.discard(record.id)
        if not own:
            del self._by_user[record.user]
        for known in (
            *(self.silences, self.places, self.stop_told, self._missing_since, self._cells),
            *(self.refusals, self._room_at),
        ):
            known.pop(record.id, None)
        self.countdowns.forget(record.id)

    def of_user(self, user: str) -> list[LeaseRecord]:
        """Return a person's live leases in the order of arrival."""
        found = (self.live[lease_id] for lease_id in self._by_user.get(user, ()))
        return sorted(found, key=lambda record: record.seq)

    def rules(self, record: LeaseRecord) -> Rules:
        """Return what counts for a lease."""
        return self.rules_for(record.groups, record.pool)

    def rules_for(self, groups: tuple[str, ...], pool: str) -> Rules:
        key = (groups, pool)
        found = self._rules.get(key)
        if found is None:
            found = self._rules[key] = self.policy.rules(groups, pool)
        return found

    def week(self, user: str) -> WeekUse:
        """Return a person's spans of the last seven days."""
        since = self._clock.now() - WEEK
        closed = [span for span in self._closed_spans.get(user, ()) if span.end is None or span.end > since]
        if user in self._closed_spans:
            self._closed_spans[user] = closed
        return WeekUse((*closed, *spans_of(self.of_user(user))))

    def hear_cell(self, lease_id: str, running: bool) -> None:
        """Take a server's word about whether a cell runs on its worker."""
        if running and lease_id in self.live:
            self._cells[lease_id] = self._clock.monotonic()
        else:
            self._cells.pop(lease_id, None)

    def _cell_runs(self, lease_id: str) -> bool:
        heard = self._cells.get(lease_id)
        return heard is not None and self._clock.monotonic() - heard <= CELL_HINT_SECONDS

    # --- the backend's words

    def see_workers(self, seen: Mapping[str, WorkerSeen]) -> None:
        """Take one observation of all workers."""
        at = self._clock.monotonic()
        self.workers, self._workers_at = seen, at
        self._changed()
        for lease_id in list(self._missing_since):
            if lease_id in seen or lease_id not in self.live:
                del self._missing_since[lease_id]
        for record in self.live.values():
            if record.observed in (Observed.READY, Observed.STOPPING) and record.id not in seen:
                self._missing_since.setdefault(record.id, at)
            worker = seen.get(record.id)
            if worker is not None and record.observed is Observed.GRANTED:
                self.refusals.pop(record.id, None)
                # A start is timed from when there was room, and anew by a new broker, who cannot know.
                self._room_at[record.id] = at if worker.waiting else self._room_at.get(record.id, at)

    def see_offers(self, offers: Sequence[PoolOffer]) -> None:
        """Take what the backend offers now. A pool that is no longer in it stays known, with nothing."""
        gone = {
            name: replace(offer, total=0, devices=())
            for name, offer in self.offers.items()
            if name not in {new.name for new in offers}
        }
        self.offers = {offer.name: offer for offer in offers} | gone
        self.offers_known = True
        self._changed()

    def distrust_offers(self) -> None:
        """The backend does not say which GPUs work: nothing is free until it does."""
        self.offers_known = False
        self._changed()

    def pools(self) -> dict[str, PoolNow]:
        """Return every pool that is known, with what of it is free."""
        if self._pools is None:
            self._pools = self._count_pools()
        return self._pools

    def _count_pools(self) -> dict[str, PoolNow]:
        taken: dict[str, int] = defaultdict(int)
        devices_taken: set[str] = set()
        for record in self.live.values():
            if record.observed is not Observed.NOTHING:
                taken[record.pool] += record.gpus
                devices_taken.update(record.device_ids)
        for worker in self.workers.values():
            if worker.phase is not Phase.EXITED:
                devices_taken.update(worker.device_ids)
        found: dict[str, PoolNow] = {}
        for offer in self.offers.values():
            free = tuple(device.id for device in offer.devices if device.id not in devices_taken)
            count = len(free) if offer.devices else max(0, offer.total - taken[offer.name])
            found[offer.name] = PoolNow(
                name=offer.name,
                title=offer.title,
                memory_bytes=offer.memory_bytes,
                total=offer.total,
                simulated=offer.simulated,
                devices=tuple(
                    DeviceInfo(device.id, device.index, device.name, device.memory_bytes, device.simulated)
                    for device in offer.devices
                ),
                free=free,
                free_count=count,
                typical_seconds=self.typical.get(offer.name),
                works=self.offers_known and offer.total > 0,
            )
        return found

    def waiting(self) -> Mapping[str, int]:
        """Return how many leases wait for each pool."""
        if self._waiting is None:
            self._waiting = Counter(record.pool for record in self.live.values() if record.queued)
        return self._waiting

    def _changed(self) -> None:
        """Drop what was counted: every reader asks for it, and it takes a walk over all leases."""
        self._pools = self._waiting = None

    # --- telemetry's words

    def see_samples(self, samples: Sequence[Sample]) -> None:
        """Take one look at the GPUs."""
        at = self._clock.monotonic()
        looks: dict[str, Look] = {}
        for sample in samples:
            self._samples[sample.device_id] = (at, sample)
            looks[sample.device_id] = Look(
                sample.utilisation_percent,
                frozenset(process.pid for process in sample.processes),
                sum(process.memory_bytes for process in sample.processes),
            )
        for lease_id, silence in self.silences.items():
            if self._confirmed(lease_id, silence.device_ids):
                silence.feed(at, looks)

    def _confirmed(self, lease_id: str, device_ids: tuple[str, ...]) -> bool:
        """Whether the place itself says now that the lease's worker has these GPUs.

        On a cluster the agent of the worker's own node says so: what another node tells of a GPU that is
        not its own is nothing to judge anybody by.
        """
        worker = self.workers.get(lease_id)
        return worker is not None and set(worker.device_ids) == set(device_ids)

    def fresh_samples(self, record: LeaseRecord) -> list[Sample]:
        """Return the last sample of each of a lease's GPUs; empty when one of them is unknown."""
        at = self._clock.monotonic()
        if not self._confirmed(record.id, record.device_ids):
            return []
        found = [
            self._samples[device][1]
            for device in record.device_ids
            if device in self._samples and at - self._samples[device][0] <= STALE_SECONDS
        ]
        return found if len(found) == len(record.device_ids) else []

    def silent_seconds(self, lease_id: str) -> float | None:
        silence = self.silences.get(lease_id)
        return None if silence is None else silence.silent_seconds(self._clock.monotonic())

    def unmeasured(self) -> Mapping[str, int]:
        """Return how many active leases of each pool there are of whose use nothing is known now."""
        return Counter(
            record.pool
            for record in self.live.values()
            if record.observed is Observed.READY and self.silent_seconds(record.id) is None
        )

    # --- all together

    def snapshot(self) -> Snapshot:
        """Return the world for `gpuhub.core.policy.decide`."""
        queued: list[Queued] = []
        held: list[Held] = []
        limited: set[str] = set()
        for record in self.live.values():
            rules = self.rules(record)
            if rules.gpu_hours_per_week is not None:
                limited.add(record.user)
            if record.observed is Observed.NOTHING:
                queued.append(Queued(record, rules, self._server_gone(record)))
            else:
                held.append(self.held(record))
        return Snapshot(
            pools=self.pools(),
            queued=tuple(queued),
            held=tuple(held),
            week={user: self.week(user) for user in limited},
        )

    def held(self, record: LeaseRecord) -> Held:
        """Return a granted lease with what was measured about it."""
        at = self._clock.monotonic()
        seen = self.workers.get(record.id)
        silence = self.silences.get(record.id)
        missing, stopped = self._missing_since.get(record.id), self.stop_told.get(record.id)
        left, warned = self.countdowns.left, record.warned
        wanted = record.wanted is Wanted.HELD
        return Held(
            record=record,
            rules=self.rules(record),
            worker=None
            if seen is None
            else WorkerNow(_PHASES[seen.phase], seen.address, seen.message, seen.waiting),
            missing_seconds=0.0 if missing is None else self._workers_at - missing,
            order_pending=record.id in self.pending_orders,
            since_grant_seconds=self.countdowns.since(record.id, "granted", record.granted_at),
            since_key_seconds=min(
                self.countdowns.since(record.id, "key", record.key_at),
                at - self._room_at.get(record.id, float("-inf")),
            ),
            refusal=self.refusals.get(record.id, ""),
            since_stop_seconds=None if stopped is None else at - stopped,
            ends_in_seconds=left(record.id, "ends", record.ends_at) if wanted else None,
            deadline_in_seconds=left(record.id, "deadline", record.deadline),
            warned_in_seconds=left(record.id, "warned", None if warned is None else warned.at),
            kept_for_seconds=max(0.0, left(record.id, "kept", record.kept_until) or 0.0),
            silent_seconds=None if silence is None else silence.silent_seconds(at),
            resident_bytes=None if silence is None else silence.resident_bytes(at),
            cell_running=self._cell_runs(record.id),
            server_gone=self._server_gone(record),
        )

    def place(self, record: LeaseRecord) -> Place | None:
        """Return where a queued lease stands; worked out now if the last pass did not know it."""
        if not record.queued:
            return None
        if record.id not in self.places and record.id in self.live:
            self.places = places(self.snapshot(), self._clock.now())
        return self.places.get(record.id)

    def progress(self, record: LeaseRecord) -> str:
        """Return what holds a granted lease's worker up, one sentence; empty: nothing special."""
        if record.observed is not Observed.GRANTED:
            return ""
        worker = self.workers.get(record.id)
        if worker is not None:
            return worker.message if worker.phase is Phase.STARTING else ""
        return self.refusals.get(record.id, "")

    def servers(self) -> Iterator[tuple[str, str]]:
        """Return the servers that live leases belong to."""
        for record in self.live.values():
            if record.wanted is Wanted.HELD:
                yield record.user, record.server

    def _server_gone(self, record: LeaseRecord) -> bool:
        return record.server_seen and self._presence.gone((record.user, record.server))
