"""Every process that came from this one, also those that tried to get away.

Each kernel and program has an init process of its own that cleans up after it
(`gpusession.kernels.launch`). This is the net below: should somebody kill that init process, the
worker is the *subreaper* that becomes the parent of what was below it, so that its descendants are
all there is and the last look finds them. Promises: a process number that was given to somebody
else meanwhile is never signalled.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

import psutil

PR_SET_CHILD_SUBREAPER = 36
SWEEPS = 100
"""What forks while it is being killed is found by the next look. More: it cannot be killed by us."""


def become_subreaper() -> None:
    """Make this process the parent of its orphaned descendants. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the parent of orphans")


def reset_signals() -> None:
    """Stop ignoring and blocking signals: under ``nohup … &`` they would not reach this process."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        if signal.getsignal(number) is signal.SIG_IGN:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def kill_all() -> None:
    """Kill all descendants of this process, and what they fork meanwhile."""
    for _ in range(SWEEPS):
        reap()
        members = [one for one in psutil.Process().children(recursive=True) if _lives(one)]
        if not members:
            return
        for one in members:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                one.kill()
        time.sleep(0.005)


def reap() -> None:
    """Collect children that have ended. Whoever waits for one of them takes "gone" for an answer."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
