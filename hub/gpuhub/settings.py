"""What `gpuhub up` tells the hub: one JSON file (0600), named by the environment variable below.

Below `config` and `up`, which do not know each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SETTINGS_VARIABLE = "GPUHUB_HUB_SETTINGS"


class HubSettings(BaseModel):
    """Everything that `gpuhub.config.apply` needs."""

    model_config = ConfigDict(extra="forbid")

    data: Path
    public_url: str = Field(description="What the proxy listens on: http://127.0.0.1:8000")
    hub_port: int
    proxy_api_url: str
    proxy_token: str = Field(repr=False)
    cookie_secret: str = Field(repr=False, description="Hex, 32 bytes.")
    broker_url: str = Field(description="http://127.0.0.1:PORT, before /services/gpu.")
    broker_token: str = Field(repr=False)
    culler_token: str = Field(repr=False)
    admin_token: str = Field(repr=False)
    auth: str
    password: str = Field("", repr=False)
    admin_password: str = Field("", repr=False)
    admins: list[str] = Field(default_factory=list)
    launcher_socket: Path
    runtime: Path
    account_mode: Literal["shared", "pam", "numbered"]
    shared_uid: int = -1
    allow_root: bool = False
    own_prefix: Path
    code_server: str = ""
    fence_seconds: int = 60
    save_seconds: float = 180.0
    extra_config: Path | None = None
