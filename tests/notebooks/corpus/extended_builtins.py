# %%
from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
class Percent(float):
    def __new__(cls, value, note=""):
        made = super().__new__(cls, value / 100)
        made.note = note
        return made
class Id(str):
    def __new__(cls, prefix, number):
        return super().__new__(cls, f"{prefix}-{number}")
class Version(tuple):
    def __new__(cls, text):
        return super().__new__(cls, map(int, text.split(".")))
    @property
    def major(self): return self[0]
class Point(namedtuple("PointBase", "x y")):
    __slots__ = ()
    def __new__(cls, x, y=None):
        return super().__new__(cls, x, x if y is None else y)
# %%
writes = []
class Loud(dict):
    def __init__(self, name):
        super().__init__()
        self.name = name
    def __setitem__(self, key, value):
        writes.append(key)
        super().__setitem__(key.lower(), value * 2)
class Bag(set):
    def __init__(self, label, *items):
        super().__init__(items)
        self.label = label
    def add(self, item):
        writes.append(item)
        super().add(item)
class Log(list):
    def __init__(self, limit):
        super().__init__()
        self.limit = limit
    def append(self, line):
        if len(self) < self.limit:
            super().append(f"{len(self)}: {line}")
class Groups(defaultdict):
    def __init__(self, name):
        super().__init__(list)
        self.name = name
class Recent(OrderedDict):
    def __init__(self, size):
        super().__init__()
        self.size = size
    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        while len(self) > self.size:
            self.popitem(last=False)
class Ring(deque):
    def __init__(self, name):
        super().__init__(maxlen=2)
        self.name = name
# %%
rate, order, version, point = Percent(19, "vat"), Id("a", 7), Version("3.11.2"), Point(4)
loud = Loud("l"); loud["KEY"] = 5
bag = Bag("b", 1, 2); bag.add(3)
log = Log(2); log.append("one"); log.append("two"); log.append("three")
groups = Groups("g"); groups["x"].append(log)
recent = Recent(2)
for n in "abc": recent[n] = n
ring = Ring("r"); ring.extend([1, 2, 3])
# %%
print(float(rate), rate.note, order, version, version.major, point, type(point).__name__)
# %%
print(loud, loud.name, sorted(bag), bag.label, list(log), log.limit, groups["new"], groups["x"][0] is log, groups.name, list(recent), recent.size, list(ring), ring.maxlen, writes)
# %%
class Proxy:
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name): return getattr(self.inner, name)
class Only:
    _made = None
    def __new__(cls, *args):
        if cls._made is None:
            cls._made = super().__new__(cls)
            cls._made.seen = []
        return cls._made
class Named:
    names = {}
    def __new__(cls, name):
        return cls.names.get(name) or cls.names.setdefault(name, super().__new__(cls))
    def __init__(self, name): self.name = name
class Frozen:
    __slots__ = ("a", "b")
    def __init__(self, a, b):
        object.__setattr__(self, "a", a)
        object.__setattr__(self, "b", b)
    def __setattr__(self, name, value): raise AttributeError("frozen")
    def __hash__(self): return hash(self.a)
    def __eq__(self, other): return self.a == other.a
class Config(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__
proxy, only, ann, frozen = Proxy([3, 1]), Only(), Named("ann"), Frozen(1, [2])
only.seen.append(frozen)
config = Config(a=1); config.b = [2]
held = {frozen: proxy}
# %%
proxy.append(2)
print(proxy.inner, Only() is only, Only().seen[0] is frozen, Named("ann") is ann, frozen.b, held[Frozen(1, 0)] is proxy, config.b, config)
# %%
try:
    frozen.a = 2
except AttributeError as error:
    print(error)
class Shelf(UserDict):
    def __setitem__(self, key, value):
        writes.append(("shelf", key))
        super().__setitem__(key, value)
shelf = Shelf(a=1)
loud["Two"] = 1; log.append("no"); bag.add(9); recent["d"] = 1; ring.append(7)
# %%
print(loud, log, sorted(bag), list(recent), ring, shelf.data, writes[-3:], Percent(50) + rate, order.upper(), Named("bob").name)
