"""Under which Unix account a person's server and workers run, and which accounts may be used at all.

Both sides are here so that they cannot drift apart: `Accounts` answers the hub's spawner and the
broker's backend ("which account is ann?"), `AccountPolicy` answers the launcher ("may I start
something as this one?"), which believes no uid that it is told.

* ``shared``: everybody is the account that runs gpuhub. Homes are separate folders, nothing more.
* ``pam``: the person's own account of this machine (uid 1000 or above), and its home.
* ``numbered``: a uid from a reserved range for each person, remembered in a file for good. It needs
  no entry in the machine's list of accounts; the home is a folder of the data folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gpulease.errors import NotAllowed, Unavailable
from gpuspawner.language import Sentence
from gpuspawner.launcher.protocol import Account

AccountMode = Literal["shared", "pam", "numbered"]

NUMBERED_FIRST = 200_000
"""Above every range that Debian gives to people, services and dynamic users."""
NUMBERED_COUNT = 100_000


def home_name(user: str) -> str:
    """Return the folder name for a person's home: the name itself where it is plain, else a safe,
    unique one."""
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", user) and "--" not in user:
        return user
    plain = re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")[:40] or "user"
    return f"{plain}--{hashlib.sha256(user.encode()).hexdigest()[:8]}"


class Accounts:
    """Resolve a person to an account.

    ``homes`` is the folder of homes (modes shared and numbered), ``book`` the JSON file that
    remembers the numbers (mode numbered); several processes may use it at once.
    """

    def __init__(
        self,
        mode: AccountMode,
        *,
        homes: Path,
        book: Path | None = None,
        first: int = NUMBERED_FIRST,
        count: int = NUMBERED_COUNT,
        shared_uid: int | None = None,
    ) -> None:
        if mode == "numbered" and book is None:
            raise ValueError("numbered accounts need a file that remembers them")
        self.mode: AccountMode = mode
        self._homes = homes
        self._book = book
        self._first = first
        self._count = count
        self._shared_uid = os.geteuid() if shared_uid is None else shared_uid

    def resolve(self, user: str) -> Account:
        """Return the account of ``user``. Raises `NotAllowed` with a reason."""
        if self.mode == "pam":
            return pam_account(user)
        home = str(self._homes / home_name(user))
        if self.mode == "shared":
            return Account(
                uid=self._shared_uid, gid=_primary_group(self._shared_uid), name=_safe(user), home=home
            )
        uid = self._first + self._number(user)
        return Account(uid=uid, gid=uid, name=_safe(user), home=home)

    def _number(self, user: str) -> int:
        assert self._book is not None
        self._book.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._book.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            numbers = self._read_book()
            if user in numbers:
                return numbers[user]
            # Never reuse: files of somebody who left must not become readable to a newcomer.
            number = max(numbers.values(), default=-1) + 1
            if number >= self._count:
                raise NotAllowed("There is no account number left for another person.")
            numbers[user] = number
            aside = self._book.with_suffix(".new")
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(numbers, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, self._book)
            return number
        finally:
            os.close(lock)

    def _read_book(self) -> dict[str, int]:
        assert self._book is not None
        try:
            numbers = json.loads(self._book.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            numbers = None
        if not isinstance(numbers, dict) or not all(isinstance(n, int) for n in numbers.values()):
            # A fresh book would give people each other's numbers, and so each other's files.
            raise Unavailable(
                "The list of account numbers is damaged.",
                hint=Sentence("Put back a good copy of {file} in the data folder.", file=self._book.name),
            )
        return numbers


def pam_account(user: str, *, minimum_uid: int = 1000) -> Account:
    """Return the machine's account ``user``; refuse system accounts and unknown names."""
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise NotAllowed("There is no account of this name on this machine.") from None
    # 65534 is nobody: an account that everything unowned belongs to is nobody's own.
    if entry.pw_uid < minimum_uid or entry.pw_uid == 65534:
        raise NotAllowed("System accounts cannot be used here.")
    return Account(uid=entry.pw_uid, gid=entry.pw_gid, name=entry.pw_name, home=entry.pw_dir)


class AccountPolicy(BaseModel):
    """Which accounts the launcher starts things as. Part of its settings."""

    model_config = ConfigDict(extra="forbid")

    mode: AccountMode = "shared"
    homes: Path | None = Field(None, description="Folder of homes; made on demand, 0700, the account's.")
    numbered_first: int = Field(NUMBERED_FIRST, ge=10_000)
    numbered_count: int = Field(NUMBERED_COUNT, ge=1)
    minimum_uid: int = Field(1000, ge=1, description="pam: accounts below belong to the system.")
    shared_uid: int | None = Field(None, description="shared: the one account; none: the launcher's own.")
    allow_shared_root: bool = Field(
        False, description="shared, as root: let everybody be root. Only for a machine of one person."
    )

    def check(self, account: Account | None) -> Account:
        """Return the account to start as. Raises `NotAllowed` for any that the mode does not cover."""
        own = os.geteuid()
        shared = own if self.shared_uid is None else self.shared_uid
        if account is None:
            account = Account(uid=shared, gid=_primary_group(shared), name=_name_of(shared), home="/")
        if account.uid == 0 and not (self.mode == "shared" and self.allow_shared_root and own == 0):
            raise NotAllowed("Nothing is started as root.")
        if own != 0 and account.uid != own:
            raise NotAllowed("This launcher is not root: it can only start things as itself.")
        if self.mode == "shared":
            if account.uid != shared or account.gid != _primary_group(shared):
                raise NotAllowed("Everybody shares one account here; another one was asked for.")
        elif self.mode == "pam":
            known = pam_account(account.name, minimum_uid=self.minimum_uid)
            if (known.uid, known.gid) != (account.uid, account.gid):
                raise NotAllowed("Name and number of the account do not belong together.")
            return known
        elif not (
            self.numbered_first <= account.uid < self.numbered_first + self.numbered_count
            and account.gid == account.uid
        ):
            raise NotAllowed("The account's number is outside the reserved range.")
        return account


def _primary_group(uid: int) -> int:
    if uid == os.geteuid():
        return os.getegid()
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _safe(user: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f/]", "_", user)[:255] or "_"
