"""The backend for GPUs of the machine that gpuhub itself runs on."""

from gpuhub.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
