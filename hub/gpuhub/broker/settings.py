"""Who may do what: the operator's policy, as YAML. (Where everything is: `gpuhub.broker.site`.)

Each setting's help says its unit, why the default is what it is, and what raising and lowering do;
`gpuhub policy` prints it. A file that cannot be used is refused with the line to change, never half read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gpuhub.broker.site import in_words
from gpuhub.core.rules import Rules

NORMAL = "normal"


IDLE_AFTER = (
    "Seconds. A GPU whose utilisation was 0 in every sample, with no new process on it, for this long "
    "is idle: its holder is warned. Interactive work pauses for minutes (published traces: a median of "
    "5 min between tasks), and below that people would fight the rule. Raise it where cells are far "
    "apart; lower it where many wait."
)
WARN = (
    "Seconds between a warning and the end it announces. 300 is long enough to come back from a coffee "
    "with a phone notice. Raise it to be gentler; lower it to hand GPUs on sooner."
)
KEEP_MINUTES = (
    "Minutes that one Keep holds an idle GPU. A bounded answer to 'I am thinking'. Raise it for long "
    "looks at results; 0 switches Keep off."
)
KEEP_TIMES = (
    "How often a lease can be kept while it is silent; afterwards only use of the GPU counts. Two "
    "halves of an hour are enough for most meetings. Raise it with care: others wait; 0 switches Keep "
    "off."
)
BUSY_CELL = (
    "Minutes. A cell that runs on a silent GPU (it loads data, or computes on the CPU) is interrupted for "
    "idleness only when somebody waits for such a GPU and the silence has lasted this long. 30 leaves time "
    "to read a large data set. Raise it for slow storage; lower it where many wait."
)
LONGEST = (
    "Hours from the grant to the latest end, whatever runs. 12 is a night's training. Raise it, also by"
    " group, for long trainings; lower it for fairness in classes; null: no end."
)
AT_ONCE = (
    "GPUs that one person may hold or wait for at the same time. 1 is a fair start while GPUs are few. "
    "Raise it, best by group, for parallel work; null: no limit."
)
LEASES = (
    "Leases (held or waiting) that one person may have at the same time, over all his servers. A bound "
    "against scripts that ask in a loop, far above what people do. Raise it for people with many named "
    "servers."
)
HOURS = (
    "GPU-hours that one person may use in any seven days. Unlimited (null) by default: an idle GPU is "
    "taken back anyway. A class or a project sets its own; lower is fairer, higher is freer."
)
DEADLINE = (
    "Seconds that a notebook has to finish its cell, save and move back once its lease ends; more where"
    " more GPU memory is in use (1 GB/s). 120 saves about 100 GB at disk speed. Raise it on slow "
    "storage; lower it to hand GPUs on sooner."
)
GRACE = (
    "Seconds that a worker has to save by itself when it is stopped without all that. 60 saves what a "
    "usual notebook holds. Raise it on slow storage; lower it to hand GPUs on sooner."
)
START = (
    "Seconds that a worker may take until it answers; afterwards the lease fails and the GPU goes to "
    "the next. 300 covers a slow disk or the first pull of an image. Raise it for large images; lower "
    "it to fail sooner."
)
KEY_WAIT = (
    "Seconds that a granted GPU waits for its owner's server to come for it. 180 covers a server that "
    "is just restarting. Raise it where servers start slowly; lower it to hand GPUs on sooner."
)
AUTOMATIC_SAVE = (
    "Seconds. A notebook whose variables have changed since they were last saved is saved this often, beside "
    "its kernel, so that a crash costs no more than that. 300 is what people redo without anger; what did "
    "not change is not written again. Raise it on slow or metered storage; lower it for less loss; 0 "
    "switches automatic saving off."
)
AUTOMATIC_WORK = (
    "Seconds that cells must have run, together, for the variables to be saved at once and not only after "
    "`automatic_save_seconds`. 10: what took longer than that is worth more than writing it. Raise it where "
    "storage is slow; lower it where cells are short and dear."
)

Seconds = Annotated[int, Field(ge=1, le=30 * 24 * 3600)]
Hours = Annotated[float, Field(gt=0, le=24 * 366)]


UNLIMITED_BY_NULL = frozenset({"longest_lease_hours", "gpus_at_once", "gpu_hours_per_week"})


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PoolPolicy(_Model):
    """What is different in one pool."""

    groups: list[str] | None = Field(default=None, description="Hub groups that may use it; none: everybody.")
    idle_after_seconds: Seconds | None = Field(default=None, description=IDLE_AFTER)
    warn_seconds: Seconds | None = Field(default=None, description=WARN)
    keep_minutes: int | None = Field(default=None, ge=0, le=24 * 60, description=KEEP_MINUTES)
    keep_times: int | None = Field(default=None, ge=0, le=1000, description=KEEP_TIMES)
    busy_cell_grace_minutes: int | None = Field(default=None, ge=0, le=7 * 24 * 60, description=BUSY_CELL)
    longest_lease_hours: Hours | None = Field(default=None, description=LONGEST)
    ending_deadline_seconds: Seconds | None = Field(default=None, description=DEADLINE)
    worker_grace_seconds: Seconds | None = Field(default=None, description=GRACE)
    worker_start_seconds: Seconds | None = Field(default=None, description=START)


class GroupPolicy(_Model):
    """What is different for the members of one hub group. Of several groups the most generous one counts."""

    gpus_at_once: int | None = Field(default=None, ge=0, description=AT_ONCE)
    leases_at_once: int | None = Field(default=None, ge=0, description=LEASES)
    gpu_hours_per_week: float | None = Field(default=None, ge=0, description=HOURS)
    longest_lease_hours: Hours | None = Field(default=None, description=LONGEST)
    idle_after_seconds: Seconds | None = Field(default=None, description=IDLE_AFTER)
    keep_minutes: int | None = Field(default=None, ge=0, le=24 * 60, description=KEEP_MINUTES)
    keep_times: int | None = Field(default=None, ge=0, le=1000, description=KEEP_TIMES)
    priority: str | None = Field(
        default=None,
        description="A name of `priorities`: who is served first in the queue. Nobody is preempted.",
    )


class PolicySettings(_Model):
    """The operator's rules. Every setting has a default; pools and groups may differ."""

    idle_after_seconds: Seconds = Field(default=600, description=IDLE_AFTER)
    warn_seconds: Seconds = Field(default=300, description=WARN)
    keep_minutes: int = Field(default=30, ge=0, le=24 * 60, description=KEEP_MINUTES)
    keep_times: int = Field(default=2, ge=0, le=1000, description=KEEP_TIMES)
    busy_cell_grace_minutes: int = Field(default=30, ge=0, le=7 * 24 * 60, description=BUSY_CELL)
    longest_lease_hours: Hours | None = Field(default=12.0, description=LONGEST)
    gpus_at_once: int | None = Field(default=1, ge=0, description=AT_ONCE)
    leases_at_once: int = Field(default=10, ge=0, description=LEASES)
    gpu_hours_per_week: float | None = Field(default=None, ge=0, description=HOURS)
    ending_deadline_seconds: Seconds = Field(default=120, description=DEADLINE)
    worker_grace_seconds: Seconds = Field(default=60, description=GRACE)
    worker_start_seconds: Seconds = Field(default=300, description=START)
    key_wait_seconds: Seconds = Field(default=180, description=KEY_WAIT)
    automatic_save_seconds: int = Field(default=300, ge=0, le=24 * 3600, description=AUTOMATIC_SAVE)
    automatic_save_work_seconds: Seconds = Field(default=10, description=AUTOMATIC_WORK)
    priorities: dict[str, int] = Field(
        default_factory=lambda: {"low": -10, NORMAL: 0, "high": 10},
        description="Names of priorities and their ranks: a higher rank is served first, within a rank the "
        "first comes first. Everybody is 'normal' unless a group says otherwise.",
    )
    pools: dict[str, PoolPolicy] = Field(
        default_factory=dict, description="By pool name: what is different there, and who may use it."
    )
    groups: dict[str, GroupPolicy] = Field(
        default_factory=dict, description="By hub group: what is different for its members."
    )

    @model_validator(mode="after")
    def _priorities_exist(self) -> PolicySettings:
        if NORMAL not in self.priorities:
            raise ValueError(f"priorities: '{NORMAL}' is missing")
        for name, group in self.groups.items():
            if group.priority is not None and group.priority not in self.priorities:
                raise ValueError(f"groups.{name}.priority: there is no priority '{group.priority}'")
        return self

    def may_use(self, groups: Sequence[str], pool: str) -> bool:
        """Whether a member of ``groups`` may use ``pool``."""
        found = self.pools.get(pool)
        return found is None or found.groups is None or any(group in found.groups for group in groups)

    def rules(self, groups: Sequence[str], pool: str) -> Rules:
        """Return what counts for a member of ``groups`` in ``pool``: group before pool before the rest."""
        own = [self.groups[name] for name in groups if name in self.groups]
        place = self.pools.get(pool) or PoolPolicy()

        def pick(name: str) -> Any:
            said = [
                value
                for group in own
                if name in group.model_fields_set
                and ((value := getattr(group, name)) is not None or name in UNLIMITED_BY_NULL)
            ]
            if said:
                return None if None in said else max(said)
            if name in place.model_fields_set and (
                getattr(place, name) is not None or name in UNLIMITED_BY_NULL
            ):
                return getattr(place, name)
            return getattr(self, name)

        names = [name for name in Rules.__dataclass_fields__ if name in PolicySettings.model_fields]
        said = [group.priority for group in own if group.priority is not None]
        priority = max(said, key=lambda name: self.priorities[name]) if said else NORMAL
        return Rules(
            **{name: pick(name) for name in names},
            priority=priority,
            rank=self.priorities[priority],
        )


def load_policy(path: Path | None) -> PolicySettings:
    """Read a policy file; None gives the defaults. Raises `ValueError` with what is wrong, `OSError`."""
    if path is None:
        return PolicySettings()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return PolicySettings()
    if not isinstance(content, dict):
        raise ValueError("it must be settings with values, one a line (idle_after_seconds: 600)")
    try:
        return PolicySettings.model_validate(content)
    except ValidationError as error:
        raise ValueError(in_words(error)) from None


def describe_policy() -> list[tuple[str, str, str]]:
    """Return (name, default, help) of every setting of a policy file, for `gpuhub policy`."""
    found = []
    defaults = PolicySettings()
    for name, field in PolicySettings.model_fields.items():
        value = getattr(defaults, name)
        shown = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
        found.append((name, shown, field.description or ""))
    return found
