"""The start-up text: one address, how to sign in, which GPUs, whose accounts. Plain words."""

from __future__ import annotations

from dataclasses import dataclass

from gpuhub.telemetry.inventory import Inventory


@dataclass(frozen=True)
class Welcome:
    url: str
    sign_in: tuple[str, ...]
    gpus: str
    accounts: str
    warnings: tuple[str, ...] = ()

    def text(self) -> str:
        rows = [("Open", self.url)]
        rows += [("Sign in" if n == 0 else "", line) for n, line in enumerate(self.sign_in)]
        rows += [("GPUs", self.gpus), ("Accounts", self.accounts)]
        rows += [("Note", line) for line in self.warnings]
        rows += [("Stop", "Ctrl-C: saves everybody's notebooks first")]
        lines = [f"  {label:<9} {text}" for label, text in rows]
        return "\n".join(["", "gpuhub is ready.", "", *lines, ""])


def describe_gpus(inventory: Inventory) -> str:
    """Return '2 simulated GPUs (no NVIDIA driver here)', '1 GPU: NVIDIA H100', 'none'."""
    gpus = inventory.gpus
    if not gpus:
        return "none: everything works, but no GPU can be turned on"
    count = f"{len(gpus)} {'simulated ' if inventory.simulated else ''}GPU{'' if len(gpus) == 1 else 's'}"
    if inventory.simulated:
        why = f" ({inventory.problem.rstrip('.')})" if inventory.problem else ""
        return f"{count}: they compute on the CPU and are only for trying things out{why}"
    names = sorted({gpu.name for gpu in gpus})
    return f"{count}: {', '.join(names)}"


def sign_in_words(auth: str, password: str, admins: tuple[str, ...], admin_password: str) -> tuple[str, ...]:
    """Return how people sign in, one line each."""
    if auth == "shared-password":
        lines = [f"any name, with the password {password}"]
        if admins:
            lines.append(f"as administrator: {', '.join(admins)}, with the password {admin_password}")
        return tuple(lines)
    words = "name and password of an account of this machine" if auth == "pam" else f"by {auth}"
    return (words, f"administrators: {', '.join(admins)}") if admins else (words,)
