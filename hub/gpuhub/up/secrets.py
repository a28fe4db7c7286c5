"""Secrets of one data folder: made once, kept in ``secrets.json`` (0600), the same at every start.

Servers that outlive a restart hold tokens and cookies made with them.
"""

from __future__ import annotations

import json
import secrets as random
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gpuhub.up.folders import DataFolder
from gpuhub.up.options import UpRefused

FILE = "secrets.json"
WORDS = [
    *("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "hazel", "inlet", "jade", "kelp"),
    *("linen", "maple", "north", "olive", "pearl", "quartz", "river", "sable", "tulip", "umber"),
    *("violet", "willow", "xenon", "yarrow", "zephyr"),
]


def _token() -> str:
    return random.token_hex(32)


def _password() -> str:
    """Easy to read aloud in a lab; about 50 bits with its digits."""
    return "-".join([*(random.choice(WORDS) for _ in range(4)), f"{random.randbelow(10**9):09d}"])


class Secrets(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cookie_secret: str = Field(default_factory=_token)
    proxy_token: str = Field(default_factory=_token)
    broker_token: str = Field(default_factory=_token)
    culler_token: str = Field(default_factory=_token)
    admin_token: str = Field(default_factory=_token)
    password: str = Field(default_factory=_password)
    admin_password: str = Field(default_factory=lambda: random.token_hex(18))


def load_or_make(data: DataFolder) -> Secrets:
    """Return the folder's secrets; what is missing is made. Raises `UpRefused` for a damaged file."""
    path: Path = data.path / FILE
    try:
        kept = json.loads(path.read_text())
        secrets = Secrets.model_validate(kept)
    except FileNotFoundError:
        kept, secrets = {}, Secrets()
    except (OSError, ValueError, ValidationError):
        raise UpRefused(
            f"{path} is damaged.", "Put back a good copy, or remove it: everybody then signs in anew."
        ) from None
    if secrets.model_dump() != kept:
        data.write(FILE, secrets.model_dump_json(indent=1))
    return secrets
