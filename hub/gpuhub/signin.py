"""Sign-in with the machine's accounts, without root in the hub: the launcher asks PAM."""

from __future__ import annotations

from typing import Any

from jupyterhub.auth import Authenticator
from traitlets import Instance, Unicode, default

from gpulease.errors import GpuhubError
from gpuspawner.launcher.client import LauncherClient


class LauncherAuthenticator(Authenticator):  # type: ignore[misc]  # jupyterhub is untyped
    """Whoever PAM accepts, and whose account may be used here, is let in.

    Names are not lower-cased: the machine's accounts know the difference.
    """

    launcher_socket = Unicode(help="The launcher's Unix socket.").tag(config=True)
    launcher = Instance(LauncherClient)

    @default("launcher")
    def _launcher(self) -> LauncherClient:
        return LauncherClient(self.launcher_socket, answer_seconds=60)

    @default("allow_all")
    def _allow_all(self) -> bool:
        return True

    def normalize_username(self, username: str) -> str:
        return username

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        user, password = data.get("username", ""), data.get("password", "")
        try:
            if await self.launcher.authenticate(user, password):
                return user
        except GpuhubError as error:
            self.log.warning("Sign-in of %r could not be checked: %s", user, error.message)
        except ValueError:  # a name or password that no account can have
            self.log.warning("Sign-in with an impossible name was refused")
        return None
