"""The JupyterHub scopes that open the broker's doors.

Custom scopes let a server's own token carry exactly one right: its owner's leases.
"""

from __future__ import annotations

MANAGE_LEASES = "custom:gpuhub:manage:leases"
"""Request, see, keep and release leases. Granted as ``!user``: one's own leases only."""

ADMIN_LEASES = "custom:gpuhub:admin:leases"
"""See and end anybody's leases. For operators."""

CUSTOM_SCOPES: dict[str, dict[str, object]] = {
    MANAGE_LEASES: {"description": "Request, see, keep and release one's own GPU leases"},
    ADMIN_LEASES: {
        "description": "See and end anybody's GPU leases",
        "subscopes": [MANAGE_LEASES],
    },
}

SERVICE_NAME = "gpu"
"""The broker's name as a service of the hub: it answers under ``/services/gpu/``."""
