"""The websocket between a notebook and its kernel, without waiting for acknowledgements.

Jupyter Server leaves Nagle's algorithm on: a kernel answers an empty cell with several small messages, and
each waits until the one before was acknowledged. A receiver that delays this (the hub's proxy does)
makes every cell 40 ms longer: measured by ``python -m tests.bench cells``.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """Jupyter's own, which sends each message at once."""

    def connect(self) -> Any:
        """See Jupyter's; the websocket is open by now."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()


def install(app: Any) -> None:
    """Use it in this Jupyter server, unless somebody has chosen another one."""
    if app.kernel_websocket_connection_class is ZMQChannelsWebsocketConnection:
        app.web_app.settings["kernel_websocket_connection_class"] = PromptConnection
