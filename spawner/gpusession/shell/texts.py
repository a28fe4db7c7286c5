"""What ``gpu`` prints, as plain lines: pure functions of the server's answers and the time.

Promises: each line says one thing; a simulated GPU is called simulated each time it is named; times
are clock times of the terminal's zone and sizes GB with one decimal (UI.md, tone). How lines are
coloured and cut to a terminal's width is `gpusession.shell.screen`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

Data = Mapping[str, Any]


def size(count: float | None) -> str:
    """The same form as in the notebook's toolbar (`gpusession.kernels.move.size_text`)."""
    if count is None:
        return "?"
    if count >= 100_000_000:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"


def moment(text: str | None) -> datetime | None:
    return None if not text else datetime.fromisoformat(text).astimezone()


def clock(text: str | None, now: datetime) -> str:
    """The time of day, with the date where it is not today's."""
    at = moment(text)
    if at is None:
        return "?"
    return at.strftime("%H:%M" if at.date() == now.astimezone(at.tzinfo).date() else "%d %b %H:%M")


def span(seconds: float) -> str:
    """A length of time: "45 s", "12 min", "3:05 h"."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60}:{minutes % 60:02d} h"


def ordinal(place: int) -> str:
    if place == 1:
        return "next in line"
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending} in line"


def gpu_name(lease: Data, pools: Iterable[Data]) -> str:
    """What the lease's GPU is called; always with the word where it is simulated."""
    devices = lease.get("devices") or []
    pool = next((one for one in pools if one["name"] == lease["pool"]), None)
    if devices:
        first = devices[0]
        text = f"{first['name']} {size(first['memory_bytes'])}"
        simulated = any(one.get("simulated") for one in devices)
    else:
        text = pool["title"] if pool else lease["pool"]
        simulated = bool(pool and pool.get("simulated"))
    if simulated and "simulated" not in text.lower():
        text += " (simulated)"
    count = len(devices) or lease.get("gpus", 1)
    return f"{count} × {text}" if count > 1 else text


def pool_line(pool: Data) -> str:
    title = pool["title"]
    if pool.get("simulated") and "simulated" not in title.lower():
        title += " (simulated)"
    return f"{pool['name']}: {title}, {size(pool['memory_bytes'])}, {free(pool)}"


def free(pool: Data) -> str:
    waiting = pool["waiting"]
    queue = "nobody waits" if not waiting else f"{waiting} waiting"
    return f"{pool['free']} of {pool['total']} free, {queue}"


def waiting_line(lease: Data | None, now: datetime) -> str:
    """One line for a wait."""
    if lease is None:
        return "Asking for a GPU."
    if lease["state"] == "queued":
        position = lease.get("position")
        if not position:
            return lease.get("message") or "Waiting for a GPU."
        parts = [ordinal(position["place"]), position["message"].rstrip(".")]
        estimate = moment(position.get("estimated_start"))
        if estimate is not None:
            parts.append(f"about {span((estimate - now).total_seconds())}")
        return " · ".join(parts)
    return {
        "starting": lease.get("message") or "Getting your GPU ready.",
        "active": "The GPU is on.",
        "ending": "Waiting until the GPU of before has been released.",
    }.get(lease["state"], lease.get("message") or "The GPU was released.")


def status_lines(status: Data, now: datetime) -> list[tuple[str, str]]:
    """What `gpu` shows: (label, text)."""
    lease = status.get("lease")
    lines = _lease_lines(status, lease, now)
    lines += [("notebook", _kernel_line(kernel)) for kernel in status["kernels"] if _worth_saying(kernel)]
    lines += [
        ("command", f"{one['command']}   since {clock(one['started_at'], now)}")
        for one in status.get("commands", [])
    ]
    if status.get("broker") == "unreachable":
        lines.append(("note", "The GPU service does not answer at the moment; this is what was known last."))
    return lines


def _lease_lines(status: Data, lease: Data | None, now: datetime) -> list[tuple[str, str]]:
    if lease is None:
        lines = [("GPU", "none")]
        lines += [("free", pool_line(pool)) for pool in status.get("pools", [])]
        return [*lines, ("hint", "Ask for one with `gpu on`, or run a program on one: `gpu run CMD`.")]
    name, state = gpu_name(lease, status.get("pools", [])), lease["state"]
    if state in ("queued", "starting"):
        return [("GPU", f"{waiting_line(lease, now)}   ({name}, lease {lease['id'][:4]})")]
    pool = next((one for one in status.get("pools", []) if one["name"] == lease["pool"]), None)
    sharing = (pool or {}).get("sharing", "exclusive")
    first = f"{name}   (lease {lease['id'][:4]}, {sharing})"
    if lease.get("active_at"):
        first += f"   on since {clock(lease['active_at'], now)}"
    if lease.get("ends_at"):
        first += f", ends at latest {clock(lease['ends_at'], now)}"
    lines = [("GPU", first), *_usage_lines(lease, status)]
    ending, warning = lease.get("ending"), lease.get("warning")
    if ending:
        until = clock(ending["deadline"], now)
        lines.append(("ends", f"{ending['message'] or 'It is being released.'} At {until} at the latest."))
    elif warning:
        left = span((moment(warning["at"]) - now).total_seconds())  # type: ignore[operator]
        text = f"{warning['message']} Taken back at {clock(warning['at'], now)}, in {left}."
        times = warning["keep"]["times_left"]
        if times:
            text += f" `gpu keep` keeps it for {warning['keep']['minutes']} min ({times} left)."
        lines.append(("warning", text))
    elif (lease.get("idle_seconds") or 0) >= 60:
        lines.append(("idle", f"for {span(lease['idle_seconds'])}"))
    return lines


def _usage_lines(lease: Data, status: Data) -> list[tuple[str, str]]:
    usage = lease.get("usage")
    if not usage:
        return [("use", "not known yet")]
    used, total = usage["memory_bytes"], usage["memory_total_bytes"]
    text = f"{usage['utilisation_percent']:.0f} %   memory {used / 1e9:.1f}/{total / 1e9:.1f} GB"
    processes = [f"{one['name']} {size(one['memory_bytes'])}" for one in usage.get("processes", [])]
    if processes:
        text += f"   processes: {', '.join(processes)}"
    return [("use", text)]


def _worth_saying(kernel: Data) -> bool:
    move = kernel.get("move")
    under_way = move is not None and move.get("ended_at") is None
    return kernel["placement"] == "worker" or under_way or bool(kernel.get("notices"))


def _kernel_line(kernel: Data) -> str:
    name = kernel.get("notebook") or f"kernel {kernel['id'][:8]}"
    where = "on the GPU" if kernel["placement"] == "worker" else "on the server"
    move = kernel.get("move")
    if move is not None and move.get("ended_at") is None:
        return f"{name}   {move_text(move)}"
    notices = kernel.get("notices") or []
    return f"{name}   {where}" + (f"   {notices[-1]['message']}" if notices else "")


def move_text(move: Data) -> str:
    text = str(move["message"])
    if move.get("bytes_total"):
        text += f" {size(move['bytes_done'])} of {size(move['bytes_total'])}"
    return text


def ended_line(lease: Data, now: datetime) -> list[str]:
    """One row of the history: pool, GPUs, state, begin, how long, why it ended."""
    began = moment(lease.get("active_at") or lease.get("granted_at"))
    ended = moment(lease.get("ended_at"))
    held = span(((ended or now) - began).total_seconds()) if began else "-"
    why = lease.get("reason") or ("" if lease["state"] == "ended" else lease["state"])
    return [clock(lease["created_at"], now), lease["pool"], str(lease["gpus"]), held, str(why), lease["id"]]


def snapshot_row(one: Data, now: datetime) -> list[str]:
    """One row of `gpu restore`: id, notebook, when, why, size, what is in it."""
    what = f"{one['kept']} kept" + (f", {one['left']} left" if one["left"] else "")
    if not one["complete"]:
        what = one.get("problem") or "damaged"
    notebook = one.get("notebook") or "-"
    return [one["id"], notebook, clock(one["created_at"], now), one["reason"], size(one["bytes"]), what]


def quota_line(quota: Data, now: datetime) -> str:
    name = quota["name"].replace("_", " ")
    allowed = quota.get("allowed")
    text = f"{name}: "
    if allowed is None:
        text += "no limit" if quota.get("used") is None else f"{quota['used']:g} {quota['unit']}, no limit"
    elif quota.get("used") is None:
        text += f"{allowed:g} {quota['unit']}"
    else:
        text += f"{quota['used']:g} of {allowed:g} {quota['unit']}"
    if quota.get("frees_at"):
        text += f", more at {clock(quota['frees_at'], now)}"
    return text


def verdict_lines(verdicts: Iterable[Data]) -> list[str]:
    """What stays behind, and how to get it back."""
    lines = []
    for one in verdicts:
        if one["verdict"] == "left":
            text = f"{one['name']} ({one['type']}): {one.get('reason') or 'it cannot be carried'}"
            lines.append(f"{text.rstrip('.')}. {one.get('hint') or ''}".rstrip())
    return lines
