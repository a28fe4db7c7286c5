"""GpuLocalSpawner and the class that it extends: what is ours must not hide what is the hub's."""

from __future__ import annotations

from jupyterhub.spawner import Spawner

from gpuspawner.local import GpuLocalSpawner

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
        for name, value in vars(GpuLocalSpawner).items()
        if callable(value) or isinstance(value, property)
    }
    hidden = {name for name in ours if hasattr(Spawner, name) and not name.startswith("__")}
    assert hidden - {"_options_from_form", "_options_form", "_apply_user_options"} == MEANT
