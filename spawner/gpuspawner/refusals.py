"""Refusals of a start that a person may read: on the choice page, the failed page, and over the API.

`jupyterhub.spawner.SpawnException` carries the sentence, but the hub's pages look for two attributes
that it lacks (seen with 6.1.1), and would show the log's text instead. `Refusal` has both.
"""

from __future__ import annotations

from html import escape
from typing import Any

from gpuspawner.language import gettext, spoken

try:
    from jupyterhub.spawner import SpawnException
except ImportError:  # JupyterHub 5: a refusal there is an HTTPError with a reason
    from tornado.web import HTTPError

    class SpawnException(HTTPError):  # type: ignore[no-redef,misc]
        """What `Refusal` needs of JupyterHub 6's class of this name."""

        def __init__(self, message: str, *, status_code: int, reason: str, **texts: Any) -> None:
            super().__init__(status_code, message, reason=reason)
            self.message = message
            self.message_html = texts["message_html"]


class Refusal(SpawnException):  # type: ignore[misc]  # jupyterhub is untyped
    """A start that cannot be: one sentence, what to do, and details for a fold.

    ``reason`` is the label in the hub's metrics. Status 400: the person asked for something that is
    not on offer. 503 or 500: it was asked rightly and did not work. It is said in the language of who asks.
    """

    def __init__(
        self, message: str, *, reason: str, hint: str = "", details: str = "", status_code: int = 400
    ) -> None:
        said, hint = spoken(message), spoken(hint)
        self.hint = hint
        self.details = details
        html = f"<strong>{escape(said)}</strong>"
        if hint:
            html += f" <span>{escape(hint)}</span>"
        if details:
            html += (
                f'<details class="gpuhub-details mt-2"><summary>{escape(gettext("Details"))}</summary>'
                f'<pre class="gpuhub-log">{escape(details)}</pre></details>'
            )
        super().__init__(
            f"{said} {hint}".strip(),
            reason=reason,
            log_message=f"{message} {details}".strip(),
            message_html=html,
            status_code=status_code,
        )

    def __str__(self) -> str:
        return str(self.message)

    @property
    def jupyterhub_message(self) -> str:
        return str(self.message)

    @property
    def jupyterhub_html_message(self) -> str:
        return str(self.message_html)
