"""Who signs in, and how: a shared password, the machine's accounts, or an authenticator of JupyterHub.

An authenticator's own settings are passed through as they are; which ones there are is its documentation's
matter. What is secret among them comes from files. Who may come in is always the operator's word: with
an authenticator of his choice nobody may, until he says ``allow_all`` or names people or groups.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from traitlets.utils.importstring import import_item

from gpuhub.secretfiles import read_secret
from gpuhub.settings import Auth, HubSettings

PAM = "pam"
SHARED_PASSWORD = "shared-password"
GROUP = "jupyterhub.authenticators"


def apply(c: Any, settings: HubSettings) -> None:
    """Set the authenticator and the admins. Raises `ValueError` for one that is not there."""
    auth = settings.auth
    c.Authenticator.admin_users = set(settings.admins)
    if settings.auth_state_key:
        c.CryptKeeper.keys = [bytes.fromhex(settings.auth_state_key)]
        c.Authenticator.enable_auth_state = True
    if auth.kind == SHARED_PASSWORD:
        c.JupyterHub.authenticator_class = SHARED_PASSWORD
        c.SharedPasswordAuthenticator.user_password = auth.password
        c.SharedPasswordAuthenticator.admin_password = auth.admin_password
        c.Authenticator.allow_all = True
    elif auth.kind == PAM and settings.local is not None:
        c.JupyterHub.authenticator_class = "gpuhub.signin.LauncherAuthenticator"
        c.LauncherAuthenticator.launcher_socket = str(settings.local.launcher_socket)
    else:
        from gpuhub.oauth import completed  # here: a hub of one machine does not carry the library

        c.JupyterHub.authenticator_class = completed(_authenticator(auth.kind))
    for name, value in _own(auth).items():
        c[class_name(auth.kind)][name] = value


def _authenticator(kind: str) -> Any:
    """Return the class behind a short name or path. Raises `ValueError`."""
    try:
        for entry in entry_points(group=GROUP):
            if entry.name == kind.lower():
                return entry.load()
        found = import_item(kind)
    except ImportError as error:
        raise ValueError(f"auth: there is no authenticator {kind}: {error}") from None
    if not isinstance(found, type):
        raise ValueError(f"auth: there is no authenticator {kind}")
    return found


def class_name(kind: str) -> str:
    """Return the class behind a short name or path: generic-oauth is GenericOAuthenticator."""
    for entry in entry_points(group=GROUP):
        if entry.name == kind.lower():
            return entry.value.rpartition(":")[2]
    return kind.rpartition(".")[2]


def _own(auth: Auth) -> dict[str, Any]:
    twice = set(auth.settings) & set(auth.settings_files)
    if twice:
        raise ValueError(f"auth: {', '.join(sorted(twice))} is given both as a setting and as a file")
    return auth.settings | {name: read_secret(path) for name, path in auth.settings_files.items()}
