"""The addresses and names of one cluster, so that several run side by side on one machine.

Everything that two clusters could quarrel about follows from one small number: addresses, the name of the
host's network device, the control group. A number is held by a file lock that the cluster's first process
inherits, so it is free again when the last process is gone, however that happened.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.waiting import ClusterError

LOCKS = Path("/tmp")
MOST_CLUSTERS = 16
NODE = "node1"


@dataclass(frozen=True)
class Numbers:
    """Addresses and names of cluster ``n``. ``lock`` is an open file; close it to give the number back."""

    n: int
    lock: int

    @property
    def host_ip(self) -> str:
        """This machine, as the cluster sees it."""
        return f"10.215.{self.n}.1"

    @property
    def node_ip(self) -> str:
        return f"10.215.{self.n}.2"

    @property
    def pods(self) -> str:
        return f"10.213.{self.n}.0/24"

    @property
    def services(self) -> str:
        return f"10.214.{self.n}.0/24"

    @property
    def api_ip(self) -> str:
        """The address of the Service ``kubernetes``: always the first of the range."""
        return f"10.214.{self.n}.1"

    @property
    def dns_ip(self) -> str:
        return f"10.214.{self.n}.10"

    @property
    def device(self) -> str:
        return f"ghc{self.n}"

    @property
    def group(self) -> str:
        """The control group below each hierarchy's root."""
        return f"gpuhub-cluster-{self.n}"

    def release(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.lock)


def take_numbers() -> Numbers:
    """Hold a number that no living cluster has."""
    for n in range(MOST_CLUSTERS):
        lock = os.open(LOCKS / f"gpuhub-cluster-{n}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return Numbers(n, lock)
    raise ClusterError(
        f"{MOST_CLUSTERS} test clusters run on this machine already. End one: make cluster-down"
    )
