"""Sign-in at a provider of the operator's choice (OAuth, OpenID Connect), completed in two ways.

* What goes wrong is said in words for the person who signs in. The library's own are for its developers,
  and text of the provider is never shown: whoever makes somebody follow a link would write on our page.
* Who was let in by a group stays no longer than the group: the library (17.4) renews groups, and does not
  ask again whether they still allow anything.

`completed` makes such a class of any authenticator of the library; its settings keep their names.
"""

from __future__ import annotations

from typing import Any

from jupyterhub.auth import Authenticator
from oauthenticator.oauth2 import OAuthCallbackHandler, OAuthenticator
from tornado.httpclient import HTTPClientError
from tornado.web import HTTPError
from traitlets import default

REFUSED = "The sign-in was refused, or you did not allow it. Sign in again to try once more."
TROUBLE = "The sign-in service reports an error. Try again; if it stays, tell your operator."
OLD = "This sign-in was begun in another window, or too long ago. Sign in again."
NOT_ACCEPTED = "The sign-in service does not accept this sign-in (any more). Sign in again."
AWAY = "The sign-in service does not answer at the moment. Try again; if it stays, tell your operator."
NOT_ALLOWED = "Neither you nor a group of yours may use this hub. Ask your operator to let you in."


class _Callback(OAuthCallbackHandler):  # type: ignore[misc]  # oauthenticator is untyped
    """Where the provider sends people back to."""

    def check_arguments(self) -> None:
        said = self.get_argument("error", "")
        if said:
            self.log.warning("The provider sent somebody back with an error: %.200r", said)
            raise HTTPError(403, REFUSED) if said == "access_denied" else HTTPError(400, TROUBLE)
        try:
            super().check_arguments()
        except HTTPError as error:
            self.log.warning("A sign-in was not completed: %s", error.log_message)
            raise HTTPError(400, OLD) from None


class _Completed(OAuthenticator):  # type: ignore[misc]  # oauthenticator is untyped
    @default("custom_403_message")
    def _not_allowed(self) -> str:
        return NOT_ALLOWED

    async def authenticate(self, handler: Any, data: Any = None, **more: Any) -> Any:
        try:
            return await super().authenticate(handler, data, **more)
        except HTTPClientError as error:
            # The library has logged what the provider said.
            if 400 <= error.code < 500:
                raise HTTPError(403, NOT_ACCEPTED) from None
            raise HTTPError(503, AWAY) from None
        except HTTPError as error:
            self.log.error("The provider's answer cannot be used: %s", error.log_message)
            raise (
                HTTPError(403, NOT_ACCEPTED) if error.status_code < 500 else HTTPError(503, TROUBLE)
            ) from None
        except OSError as error:
            self.log.error("The provider cannot be reached: %s", error)
            raise HTTPError(503, AWAY) from None
        except (ValueError, KeyError, TypeError) as error:
            self.log.error("The provider's answer cannot be understood: %s", type(error).__name__)
            raise HTTPError(503, TROUBLE) from None

    async def refresh_user(self, user: Any, handler: Any = None, **more: Any) -> Any:
        found = await super().refresh_user(user, handler, **more)
        if isinstance(found, dict) and not await self.check_allowed(found["name"], found):
            self.log.info("%s may not use this hub any more", user.name)
            return False
        return found


def completed(authenticator: type[Authenticator]) -> type[Authenticator]:
    """Return an authenticator that does both, or the one given where it is none of the library."""
    if not issubclass(authenticator, OAuthenticator):
        return authenticator
    callback = type("Callback", (_Callback, authenticator.callback_handler), {})
    made: type[Authenticator] = type(
        authenticator.__name__,
        (_Completed, authenticator),
        {"callback_handler": callback, "__module__": authenticator.__module__},
    )
    return made
