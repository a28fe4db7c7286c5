"""The digest of a large piece of memory: a tree of two levels, so that several threads can work on it.

The piece is cut into leaves of `LEAF_BYTES`. Each leaf has a digest of its own (`Digesting`), and the
SHA-256 over all of them, with the piece's length and the way of digesting, is the digest of the whole.

What it promises. The leaves are digested by XXH3 (128 bits, with a random seed that is drawn by each
kernel and lies in its snapshots' lists of contents, readable by their owner only). Damage, and a change
of the data, go unnoticed with a chance of about 2^-128, as with SHA-256; it takes a tenth of the time,
about as long as reading the memory. It is no proof against somebody who may write into the snapshot's
folder; nothing that lies in that folder could be, since he could write the list of contents as well.
The seed is there for data that somebody else made: he cannot prepare two arrays that look the same.

Where `xxhash` is missing, leaves are digested by SHA-256, several times slower. Every piece says how it
was digested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

try:
    import xxhash
except ImportError:
    xxhash = None  # type: ignore[assignment]

LEAF_BYTES = 1 << 20
LEAF_LIMIT_BYTES = 64 << 20
ALGORITHMS = ("xxh3-128", "sha256")
SEED_BITS = 64

Leaf = Callable[[memoryview], bytes]


class NotHere(Exception):
    """This process cannot compute such digests: a library is missing."""


@dataclass(frozen=True)
class Digesting:
    """How a piece's leaves are digested. ``leaf``: bytes of each but the last."""

    algorithm: str
    seed: int
    leaf: int = LEAF_BYTES

    def of_leaf(self) -> Leaf:
        """Return the function for one leaf. Raises NotHere."""
        if self.algorithm == "xxh3-128":
            if xxhash is None:
                raise NotHere("xxhash")
            digest, seed = xxhash.xxh3_128_digest, self.seed
            return lambda memory: digest(memory, seed)
        return lambda memory: hashlib.sha256(memory).digest()

    def count(self, nbytes: int) -> int:
        """Return how many leaves a piece of this length has."""
        return -(-nbytes // self.leaf)

    def whole(self, nbytes: int, leaves: Sequence[bytes]) -> str:
        head = f"gpuhub-piece {self.algorithm} {self.seed:016x} {self.leaf} {nbytes}\n"
        return hashlib.sha256(head.encode() + b"".join(leaves)).hexdigest()


def best(draw_seed: Callable[[int], int]) -> Digesting:
    """Return the way for new pieces. ``draw_seed``: returns so many random bits."""
    if xxhash is None:
        return Digesting("sha256", 0)
    return Digesting("xxh3-128", draw_seed(SEED_BITS))
