"""GpuLocalSpawner and the class that it extends: what is ours must not hide what is the hub's."""

from __future__ import annotations

import subprocess

from jupyterhub.spawner import Spawner

from gpuspawner.base import GpuSpawner
from gpuspawner.local import NAME_THE_PROMPT, GpuLocalSpawner

MEANT = {
    "clear_state",
    "get_env",
    "get_state",
    "load_state",
    "poll",
    "progress",
    "run_pre_spawn_hook",
    "start",
    "stop",
}
"""What a spawner is asked for."""


def test_nothing_of_the_hubs_own_spawner_is_hidden_by_accident() -> None:
    ours = {
        name
        for kind in (GpuSpawner, GpuLocalSpawner)
        for name, value in vars(kind).items()
        if callable(value) or isinstance(value, property)
    }
    hidden = {name for name in ours if hasattr(Spawner, name) and not name.startswith("__")}
    assert hidden - {"_options_from_form", "_options_form", "_apply_user_options"} == MEANT


def test_a_shell_greets_with_the_persons_name_where_the_machine_knows_only_a_number() -> None:
    script = r"""PS1='\u@\h:\w\$ '; eval "$PROMPT_COMMAND"; printf '%s|%s' "$PS1" "${PROMPT_COMMAND-gone}" """
    env = {"PATH": "/usr/bin:/bin", "USER": "ann", "PROMPT_COMMAND": NAME_THE_PROMPT}
    run = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert run.stdout == r"ann@\h:\w\$ |gone"
