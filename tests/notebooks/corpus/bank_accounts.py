# %%
from __future__ import annotations
from abc import ABC, abstractmethod
import itertools
# %%
class Account(ABC):
    _numbers = itertools.count(1000)
    opened = 0

    def __init__(self, owner: str) -> None:
        self.owner, self.number, self.balance = owner, next(self._numbers), 0
        type(self).opened += 1
        Account.registry[self.number] = self

    registry: dict[int, Account] = {}

    @abstractmethod
    def fee(self) -> int: ...

    def deposit(self, amount):
        self.balance += amount - self.fee()
        return self
# %%
class Savings(Account):
    rate = 0.02
    def fee(self):
        return 0
class Checking(Account):
    def fee(self):
        return 1
    def deposit(self, amount):
        return super().deposit(amount)
# %%
ann, bob = Savings("ann").deposit(100), Checking("bob").deposit(50)
ann.friend, bob.friend = bob, ann
# %%
print(ann.balance, bob.balance, Account.opened, Savings.opened, Checking.opened)
print(Account.registry[ann.number] is ann, ann.friend.friend is ann)
# %%
cyd = Savings("cyd")
print(cyd.number, sorted(Account.registry), isinstance(cyd, Account), Savings.__mro__[1] is Account)
# %%
Savings.rate = 0.5
print(ann.rate, cyd.rate, Savings.rate)
deposit = bob.deposit
# %%
deposit(10)
print(bob.balance, deposit.__self__ is bob)
try:
    Account("x")
except TypeError as error:
    print(type(error).__name__)
