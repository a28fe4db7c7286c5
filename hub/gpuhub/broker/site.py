"""Where the broker finds everything: one JSON file, written by `gpuhub up` or a chart.

What all places have in common, and exactly one section for the place itself: ``local`` (this machine) or
``kubernetes``. Secrets may stand in files of their own (``hub_api_token_file``). A file that cannot be used
is refused with every mistake named, never half read, and no value of it is repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    SerializationInfo,
    ValidationError,
    field_serializer,
    model_validator,
)

from gpuhub.backends.kubernetes.settings import KubernetesSettings
from gpuhub.secretfiles import SecretFiles


class LocalSettings(BaseModel):
    """Section ``local``: the GPUs of this machine."""

    model_config = ConfigDict(extra="forbid")

    gpus: str = Field(default="auto", description="auto, none, nvidia or sim:N, as `gpuhub up --gpus`.")
    launcher_socket: Path = Field(description="The launcher's socket: starts workers on this machine.")
    account_mode: Literal["shared", "pam", "numbered"] = Field(description="See gpuspawner's accounts.")
    homes: Path = Field(description="Folder of homes, where people have no account of their own.")
    accounts_book: Path | None = Field(default=None, description="File that remembers numbered accounts.")
    shared_uid: int | None = Field(default=None, description="The account that all share, in mode shared.")
    prefix: str = Field(description="Python prefix for workers whose owner has no server.")


class BrokerSettings(SecretFiles):
    """Where the broker finds everything. With secrets inside: mode 0600."""

    host: str = Field(default="127.0.0.1", description="Address to listen on. The proxy is the only client.")
    port: int = Field(ge=0, le=65535, description="Port to listen on.")
    hub_api_url: str = Field(description="The hub's API: http://127.0.0.1:8081/hub/api")
    hub_api_token: SecretStr = Field(description="The broker's own token at the hub.")
    database_url: SecretStr = Field(
        description="sqlite+aiosqlite:////path/file.sqlite or postgresql+psycopg://user@host/name"
    )
    policy_file: Path | None = Field(default=None, description="The policy (YAML); none: the defaults.")
    local: LocalSettings | None = Field(default=None, description="The place: GPUs of this machine.")
    kubernetes: KubernetesSettings | None = Field(default=None, description="The place: a cluster's GPUs.")

    @model_validator(mode="after")
    def _one_place(self) -> BrokerSettings:
        if (self.local is None) == (self.kubernetes is None):
            raise ValueError("write exactly one of the sections local and kubernetes")
        return self

    @field_serializer("hub_api_token", "database_url")
    def _secret(self, secret: SecretStr, info: SerializationInfo) -> str:
        """Hide a secret, unless the writer asks for it: ``model_dump(context={"reveal": True})``."""
        reveal = isinstance(info.context, dict) and info.context.get("reveal")
        return secret.get_secret_value() if reveal else str(secret)


def load_settings(path: Path) -> BrokerSettings:
    """Read the broker's settings. Raises `ValueError` with what is wrong, `OSError`."""
    try:
        return BrokerSettings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(in_words(error)) from None


def in_words(error: ValidationError) -> str:
    """Return what is wrong: one clause per mistake."""
    said = []
    for one in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in one["loc"])
        what = "there is no such setting" if one["type"] == "extra_forbidden" else one["msg"]
        what = what.removeprefix("Value error, ")
        said.append(f"{where}: {what[:1].lower()}{what[1:]}" if where else what)
    return "; ".join(said)
