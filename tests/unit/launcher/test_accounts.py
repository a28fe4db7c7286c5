"""Which account a person gets, and which accounts are never used."""

from __future__ import annotations

import json
import os
import pwd
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpulease.errors import NotAllowed, Unavailable
from gpuspawner.launcher.accounts import AccountPolicy, Accounts, home_name, pam_account
from gpuspawner.launcher.protocol import Account


def numbered(folder: Path, **settings: int) -> Accounts:
    return Accounts("numbered", homes=folder / "homes", book=folder / "numbers.json", **settings)


def test_each_person_gets_a_number_and_keeps_it(tmp_path: Path) -> None:
    accounts = numbered(tmp_path)
    ann, bob = accounts.resolve("ann"), accounts.resolve("bob")
    assert ann.uid != bob.uid
    assert numbered(tmp_path).resolve("ann") == ann
    assert ann.gid == ann.uid
    assert ann.home == str(tmp_path / "homes" / "ann")


def test_a_number_is_never_given_again(tmp_path: Path) -> None:
    numbered(tmp_path).resolve("ann")
    bob = numbered(tmp_path).resolve("bob")
    book = tmp_path / "numbers.json"
    numbers = json.loads(book.read_text())
    del numbers["ann"]
    book.write_text(json.dumps(numbers))
    assert numbered(tmp_path).resolve("cleo").uid > bob.uid


def test_two_processes_at_once_give_no_number_twice(tmp_path: Path) -> None:
    people = [f"person-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        accounts = list(threads.map(lambda name: numbered(tmp_path).resolve(name), people))
    assert len({account.uid for account in accounts}) == len(people)


def test_a_damaged_list_of_numbers_is_not_begun_anew(tmp_path: Path) -> None:
    numbered(tmp_path).resolve("ann")
    (tmp_path / "numbers.json").write_text('{"ann": ')
    with pytest.raises(Unavailable, match="damaged"):
        numbered(tmp_path).resolve("bob")


def test_a_full_range_says_so(tmp_path: Path) -> None:
    accounts = numbered(tmp_path, count=1)
    accounts.resolve("ann")
    with pytest.raises(NotAllowed):
        accounts.resolve("bob")


@pytest.mark.parametrize(
    "user", ["../../etc", "Ann", "ann@lab.example", "", ".", "..", "a/b", "한국", "x" * 200]
)
def test_any_name_gets_a_home_of_its_own_inside_the_homes(user: str) -> None:
    name = home_name(user)
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name) < 64
    assert name != home_name(user + "x")


def test_no_two_names_share_a_home() -> None:
    names = ["ann", "Ann", "ANN", "ann-", "-ann", "ann@x", "ann.x", "ann x", home_name("Ann")]
    assert len({home_name(name) for name in names}) == len(names)


def test_system_accounts_and_strangers_are_refused() -> None:
    for name in ("root", "daemon", "nobody", "no-such-person", "", "a\0b"):
        with pytest.raises(NotAllowed):
            pam_account(name)


def test_shared_means_the_launchers_own_account() -> None:
    own = os.geteuid()
    policy = AccountPolicy(mode="shared", allow_shared_root=True)
    account = Account(uid=own, gid=os.getegid(), name="ann", home="/home/ann")
    assert policy.check(account) == account
    assert policy.check(None).uid == own
    other = account.model_copy(update={"uid": own + 1})
    with pytest.raises(NotAllowed):
        policy.check(other)


def test_a_shared_account_that_is_root_wants_an_operators_word() -> None:
    policy = AccountPolicy(mode="shared", shared_uid=0)
    with pytest.raises(NotAllowed):
        policy.check(None)


@pytest.mark.parametrize("mode", ["pam", "numbered"])
def test_root_is_never_started_for_a_person(mode: str) -> None:
    policy = AccountPolicy(mode=mode, allow_shared_root=True)
    with pytest.raises(NotAllowed):
        policy.check(Account(uid=0, gid=0, name=pwd.getpwuid(0).pw_name, home="/root"))
