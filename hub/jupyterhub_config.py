"""JupyterHub's configuration for gpuhub: all of it is `gpuhub.config.apply`."""

from gpuhub.config import apply

apply(get_config())  # type: ignore[name-defined]  # noqa: F821 (JupyterHub puts it here)
