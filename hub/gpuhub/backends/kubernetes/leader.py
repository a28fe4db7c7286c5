"""Leadership by a Lease of the cluster: renewed every 5 s, free for others 15 s after the last renewal.

Nobody's wall clock counts: others wait until they themselves have seen no renewal for 15 s, and the holder
stops believing in itself earlier, 10 s after it *began* its last successful renewal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from gpuhub.backends.kubernetes.api import LEASES, Api, ApiError, Object

EXPIRES_SECONDS = 15
RENEW_SECONDS = 5.0
DOUBT_SECONDS = 10.0
RETRY_SECONDS = 2.0

log = logging.getLogger(__name__)


class LeaseLeader:
    """One broker's claim to the Lease ``name``. ``identity`` is unique to this process."""

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api, self._namespace, self._name, self._identity = api, namespace, name, identity
        self._clock, self._now = clock, now
        self._renewed_at: float | None = None
        self._heard: tuple[str, float] | None = None
        """The version of another's Lease, and since when it is that."""

    def leads(self) -> bool:
        return self._renewed_at is not None and self._clock() - self._renewed_at < DOUBT_SECONDS

    async def acquire(self) -> None:
        told = False
        while not await self.attempt():
            if not told:
                told = True
                log.warning("another broker leads; waiting (lease %s/%s)", self._namespace, self._name)
            await asyncio.sleep(RETRY_SECONDS)
        log.info("this broker leads")

    async def hold(self) -> None:
        pause = RENEW_SECONDS
        while self.leads():
            await asyncio.sleep(pause)
            pause = RENEW_SECONDS if await self.attempt() else RETRY_SECONDS / 2
        self._renewed_at = None
        log.error("this broker does not lead any more")

    async def release(self) -> None:
        if self._renewed_at is None:
            return
        self._renewed_at = None
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                found = await self._api.get(LEASES, self._namespace, self._name)
                if self._spec(found).get("holderIdentity") == self._identity:
                    found["spec"] = {**self._spec(found), "holderIdentity": ""}
                    await self._api.replace(LEASES, self._namespace, self._name, found)
        except (ApiError, TimeoutError) as error:
            log.info("the leader's Lease was not handed on; it expires by itself: %s", error)

    async def attempt(self) -> bool:
        """Take or renew the Lease if it is free or ours."""
        began = self._clock()
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                held = await self._claim()
        except (ApiError, TimeoutError) as error:
            log.warning("the leader's Lease cannot be written: %s", error or "no answer in time")
            return False
        if held:
            self._renewed_at = began
        elif self._renewed_at is not None:
            self._renewed_at = None  # somebody else has it: no doubt is left
        return held

    async def _claim(self) -> bool:
        try:
            found = await self._api.get(LEASES, self._namespace, self._name)
        except ApiError as error:
            if error.status != 404:
                raise
            return await self._write(None)
        spec = self._spec(found)
        holder = spec.get("holderIdentity")
        if holder and holder != self._identity:
            version = str((found.get("metadata") or {}).get("resourceVersion", ""))
            if self._heard is None or self._heard[0] != version:
                self._heard = (version, self._clock())
            if self._clock() - self._heard[1] < EXPIRES_SECONDS:
                return False
        return await self._write(found)

    async def _write(self, found: Object | None) -> bool:
        spec = {} if found is None else self._spec(found)
        moment = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = spec.get("holderIdentity") == self._identity
        body: Object = found or {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
        }
        body["spec"] = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": EXPIRES_SECONDS,
            "acquireTime": spec.get("acquireTime", moment) if mine else moment,
            "renewTime": moment,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if mine or found is None else 1),
        }
        try:
            if found is None:
                await self._api.create(LEASES, self._namespace, body)
            else:
                # The version in it makes this a compare-and-swap: of two, one gets a conflict.
                await self._api.replace(LEASES, self._namespace, self._name, body)
        except ApiError as error:
            if error.status == 409 and not mine:
                return False
            raise  # ours, and somebody touched it: looked at again, in doubt until then
        return True

    @staticmethod
    def _spec(found: Object) -> Object:
        spec = found.get("spec")
        return spec if isinstance(spec, dict) else {}
