"""What a kernel finds in its environment, and what it must not find there.

Promises: no secret of hub, broker or server reaches a notebook (people share notebooks' outputs,
and ``%env`` prints everything); a kernel on the server sees no GPU, whatever the machine has; what
binds a kernel to the process that started it (parent polling) is gone, since it may move. Kernels
that a notebook's cell starts by itself (nbclient, papermill, a plain kernel manager) run where that
cell runs, and other accounts of the machine cannot read what they print.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_DROPPED = re.compile(
    r"""
    JUPYTERHUB_.*               # its API token opens the person's whole account at the hub
    | JPY_API_TOKEN | JPY_PARENT_PID | JPY_INTERRUPT_EVENT
    | JUPYTER_TOKEN | JUPYTER_SERVER_TOKEN
    | CONFIGPROXY_.*
    | KUBERNETES_.*             # addresses of a cluster that a notebook has no business with
    | GPUHUB_BROKER_.* | GPUHUB_UNIT.* | GPUHUB_GRACE_SECONDS | GPUHUB_SAVE_SECONDS
    | GPUHUB_.*(TOKEN|SECRET|PASSWORD|KEY)
    | PYTHONEXECUTABLE
    | NOTIFY_SOCKET | LISTEN_FDS | LISTEN_PID
    """,
    re.VERBOSE,
)

_PUBLIC = frozenset(
    {
        "JUPYTERHUB_USER",
        "JUPYTERHUB_SERVER_NAME",
        "JUPYTERHUB_SERVICE_PREFIX",
        "JUPYTERHUB_BASE_URL",
        "JUPYTERHUB_HOST",
        "JUPYTERHUB_PUBLIC_URL",
    }
)
"""Names and paths that libraries use to make links to a server's pages (TensorBoard, dask)."""

PROVISIONER = "JUPYTER_DEFAULT_PROVISIONER_NAME"
KERNELS_HERE = "GPUHUB_KERNELS_HERE"
"""Set where a kernel that a program starts runs right there: a cell's belong beside it, not to the server."""

WITHOUT_GPUS = {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """Return what of a server's environment a notebook may know."""
    return {name: value for name, value in env.items() if name in _PUBLIC or not _DROPPED.fullmatch(name)}


def on_server(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a kernel on this machine beside the server."""
    return {**without_secrets(env), **WITHOUT_GPUS}


def for_cells(env: Mapping[str, str], provisioner: str | None) -> dict[str, str]:
    """Return a kernel's environment with what kernels need that its cells start.

    ``provisioner``: the one that keeps them private. None where the kernel's Python does not have it:
    naming it there would let no kernel start at all.
    """
    found = {**env, KERNELS_HERE: "1"}
    found.pop(PROVISIONER, None)
    if provisioner is not None:
        found[PROVISIONER] = provisioner
    return found
