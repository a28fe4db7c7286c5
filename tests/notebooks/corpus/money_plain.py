# %%
from decimal import Decimal, ROUND_HALF_UP
from fractions import Fraction
import datetime as dt, statistics, zoneinfo, calendar, random, secrets, hashlib, uuid
CENT = Decimal("0.01")
class Money:
    __slots__ = ("amount", "currency", "__weakref__")
    def __init__(self, amount, currency="EUR"):
        object.__setattr__(self, "amount", Decimal(amount).quantize(CENT, ROUND_HALF_UP))
        object.__setattr__(self, "currency", currency)
    def __setattr__(self, name, value): raise AttributeError("frozen")
    def __add__(self, other): return Money(self.amount + other.amount, self.currency)
    def __radd__(self, other): return self if other == 0 else NotImplemented
    def __eq__(self, other): return (self.amount, self.currency) == (other.amount, other.currency)
    def __hash__(self): return hash((self.amount, self.currency))
    def __repr__(self): return f"{self.amount} {self.currency}"
# %%
wallet = {Money(5): "five", Money("2.345"): "some"}
parts = [Fraction(1, n) for n in (2, 3, 7)]
zone = zoneinfo.ZoneInfo("America/New_York")
opened = dt.datetime(2024, 3, 10, 1, 30, tzinfo=zone)
digest = hashlib.sha256(b"start").hexdigest()
# %%
print(wallet[Money(5)], sum(wallet, start=0), sum(parts), opened + dt.timedelta(hours=1), opened.tzinfo is zone)
# %%
class Ledger(list):
    def __init__(self, *entries):
        super().__init__(entries)
        self.closed = False
    @property
    def balance(self): return sum(self, start=Money(0))
class Percent(float):
    def __new__(cls, value, note=""):
        made = super().__new__(cls, value / 100)
        made.note = note
        return made
    def __str__(self): return f"{self * 100:g}%"
ledger = Ledger(Money(1), Money("2.50"))
rate = Percent(19, "vat")
# %%
try:
    ledger[0].amount = 3
except AttributeError as error:
    print(error)
print(ledger.balance, ledger.closed, rate, rate.note, f"{rate + 1:.2f}", digest[:8])
# %%
ledger.append(Money(4))
alias = ledger
alias.closed = True
weeks = calendar.Calendar().monthdatescalendar(2024, 2)
dice = random.Random("shop")
rolls = [dice.randint(1, 6) for _ in range(3)]
# %%
print(ledger.balance, ledger.closed, weeks[0][0], rolls, dice.randint(1, 6), statistics.NormalDist(1, 2).cdf(1))
# %%
key = uuid.uuid5(uuid.NAMESPACE_DNS, "shop")
print(key, dice.choice("abc"), type(rate) is Percent, dt.datetime(2024, 1, 1, fold=1).fold, min(ledger, key=lambda m: m.amount))
