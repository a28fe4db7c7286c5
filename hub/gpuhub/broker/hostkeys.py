"""A host key pair for each worker: the owner's server accepts this worker and no other."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


@dataclass(frozen=True)
class HostKey:
    """An ed25519 pair in OpenSSH's forms."""

    public: str
    private: str = field(repr=False)


def make_host_key() -> HostKey:
    """Return a fresh pair."""
    key = Ed25519PrivateKey.generate()
    return HostKey(
        public=key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
        private=key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(),
    )
