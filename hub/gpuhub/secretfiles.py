"""Settings whose secrets may stand in files of their own.

A chart keeps settings in a ConfigMap, which many may read, and secrets in a Secret, which is mounted as
files. So every secret field ``x`` of a `SecretFiles` model may be given as ``x_file``: the path of a file
that holds it. White space at the end is not part of a secret. A validation error never quotes a value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

SUFFIX = "_file"


class SecretFiles(BaseModel):
    """Base of settings with secrets: fields of type `SecretStr`, or marked ``repr=False``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        read = dict(raw)
        for name, field in cls.model_fields.items():
            secret = field.repr is False or field.annotation is SecretStr
            if not secret or name + SUFFIX not in read:
                continue
            path = read.pop(name + SUFFIX)
            if name in read:
                raise ValueError(f"{name} and {name}{SUFFIX} say the same; write one")
            if path:
                read[name] = read_secret(Path(path))
        return read


def read_secret(path: Path) -> str:
    """Return the secret that ``path`` holds. Raises `ValueError` with what is wrong."""
    try:
        text = path.read_text().rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error.__class__.__name__}") from None
    if not text:
        raise ValueError(f"{path} is empty")
    return text
