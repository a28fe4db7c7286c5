"""The idle culler's configuration for gpuhub: all of it is `gpuhub.culling.apply`."""

from gpuhub.culling import apply

apply(get_config())  # type: ignore[name-defined]  # noqa: F821 (its loader puts it here)
