"""What people are told about a lease, in one sentence each: calm, exact, without names of others."""

from __future__ import annotations

from gpuhub.core.lease import LeaseRecord, Warned
from gpuhub.core.rules import Rules
from gpulease.states import EndReason, LeaseState

ENDING: dict[EndReason, str] = {
    EndReason.RELEASED: "The GPU is being released",
    EndReason.IDLE: "The GPU was idle and is being released",
    EndReason.EXPIRED: "The longest time for one GPU is over",
    EndReason.PREEMPTED: "Somebody with a higher priority needs the GPU",
    EndReason.QUOTA: "Your GPU-hours of the last seven days are used up",
    EndReason.REVOKED: "An operator takes the GPU back",
    EndReason.CANCELLED: "The request is being cancelled",
    EndReason.FAILED: "The GPU's worker failed",
    EndReason.SERVER_STOPPED: "Your server has stopped",
}
ENDED: dict[EndReason, str] = {
    EndReason.RELEASED: "The GPU was released.",
    EndReason.IDLE: "The GPU was idle and was released.",
    EndReason.EXPIRED: "The longest time for one GPU was over.",
    EndReason.PREEMPTED: "Somebody with a higher priority needed the GPU.",
    EndReason.QUOTA: "Your GPU-hours of seven days were used up.",
    EndReason.REVOKED: "An operator took the GPU back.",
    EndReason.CANCELLED: "The request was cancelled.",
    EndReason.FAILED: "The GPU's worker failed.",
    EndReason.SERVER_STOPPED: "Your server has stopped, and the GPU was released.",
}


def message(record: LeaseRecord, position: str | None, progress: str = "") -> str:
    """Return one sentence about a lease's present state."""
    state = record.state
    if state is LeaseState.QUEUED:
        return position or "It waits for a GPU."
    if state is LeaseState.STARTING:
        if record.public_key is None:
            return f"{devices(record)} is set aside and waits for your server."
        return progress or f"Getting {_in_a_sentence(devices(record))} ready."
    if state is LeaseState.ACTIVE:
        return f"{devices(record)} is yours."
    reason = record.reason or EndReason.RELEASED
    if record.message:
        return record.message
    if state is LeaseState.ENDED:
        return ENDED[reason]
    return f"{ENDING[reason]}. What runs there is saved and moved back first."


def devices(record: LeaseRecord) -> str:
    """Return the lease's GPUs as people read them: 'simulated GPU 0', 'NVIDIA H100 (GPU 3)'."""
    names = [
        device.name if device.simulated else f"{device.name} (GPU {device.index})"
        for device in record.devices
    ]
    if not names:
        return "The GPU" if record.gpus == 1 else f"A set of {record.gpus} GPUs"
    return names[0] if len(names) == 1 else f"A set of {len(names)} GPUs ({', '.join(names)})"


def _in_a_sentence(name: str) -> str:
    return name[0].lower() + name[1:] if name.startswith(("The ", "A set")) else name


def warning(record: LeaseRecord, warned: Warned, rules: Rules) -> str:
    """Return what a warning says."""
    if warned.reason is EndReason.IDLE:
        text = f"The GPU was idle for {duration(rules.idle_after_seconds)}. "
        if warned.resident_bytes:
            text += f"Silent processes still hold {size(warned.resident_bytes)} of its memory. "
        return text + "If it is not used, your work is saved, moved back, and the GPU is released."
    if warned.reason is EndReason.QUOTA:
        return "Your GPU-hours of the last seven days end soon. Your work is saved and moved back then."
    return "The longest time for one GPU ends soon. Your work is saved and moved back then."


def duration(seconds: float) -> str:
    """Return 45 s, 10 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f}".removesuffix(".0") + " h"


def size(count: int) -> str:
    """Return GB with one decimal, or whole MB below one tenth of it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{max(1, round(count / 1e6))} MB"
