"""What `gpuhub up` was asked for, and the errors that end it with a sentence.

Promises: whatever is wrong with the options or the machine is one clear sentence and exit code 2,
before anything was started.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gpuhub.telemetry.inventory import MAX_SIMULATED, simulated_count

EXIT_REFUSED = 2


class UpRefused(Exception):
    """`gpuhub up` cannot start (or go on). One sentence, and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint


class UpFailed(Exception):
    """A part does not start. The message holds its last lines."""


@dataclass(frozen=True)
class UpOptions:
    """The command line, checked for form. Paths are absolute."""

    data: Path
    address: str = "127.0.0.1"
    port: int = 8000
    gpus: str = "auto"
    auth: str = "shared-password"
    admins: tuple[str, ...] = ()
    config: Path | None = None
    policy: Path | None = None
    ready_file: Path | None = None
    run_as: str | None = None
    cull_after_seconds: int = 3600
    verbose: bool = False
    admin_names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        try:
            count = simulated_count(self.gpus)
        except ValueError:
            count = 0
        if count == 0:
            raise UpRefused(
                f"--gpus {self.gpus} means nothing.",
                f"Write auto, none, nvidia, or sim:N with N from 1 to {MAX_SIMULATED}.",
            )
        if not 0 <= self.port <= 65535:
            raise UpRefused(f"--port {self.port} is not a port.", "Take one from 1 to 65535, or 0 for any.")
        if self.cull_after_seconds < 0:
            raise UpRefused("--cull-after must be 0 (never) or more seconds.")
        for path, name in ((self.config, "--config"), (self.policy, "--policy")):
            if path is not None and not path.is_file():
                raise UpRefused(f"{name}: there is no file {path}.")
        names = self.admins or (("admin",) if self.auth == "shared-password" else ())
        object.__setattr__(self, "admin_names", names)
