# %%
import dataclasses, functools, inspect, sys, types, typing
from collections import namedtuple
from typing import Annotated, Generic, TypeVar
T = TypeVar("T")
def init(self, n): self.n = n
Maker = type("Maker", (), {"__init__": init, "double": lambda self: 2 * self.n, "kind": "made"})
Point = dataclasses.make_dataclass("Point", [("x", int), ("y", int, dataclasses.field(default=3))], frozen=True)
Row = namedtuple("Row", "id, def, id", rename=True, defaults=[0])
# %%
exec("def made_by_exec(a, b=2):\n    return a * b\nvalue = made_by_exec(21)")
source = "class Dyn:\n    tag = 'dyn'\n    def hi(self): return self.tag + str(value)\n"
scope = {"value": 7}
exec(source, scope)
Dyn = scope["Dyn"]
# %%
def traced(cls):
    for name, member in list(vars(cls).items()):
        if inspect.isfunction(member):
            def wrap(member=member):
                @functools.wraps(member)
                def inner(*args, **kwargs):
                    cls.trace.append(member.__name__)
                    return member(*args, **kwargs)
                return inner
            setattr(cls, name, wrap())
    cls.trace = []
    return cls
@traced
class Calc:
    def add(self, a, b): return a + b
    def twice(self, a): return self.add(a, a)
calc = Calc()
calc.twice(4)
# %%
print(Maker(4).double(), Point(1), Row(1, 2), value, Dyn().hi(), Calc.trace)
# %%
class Lazy:
    def __init__(self, make): self.make = make
    def __set_name__(self, owner, name): self.name = name
    def __get__(self, obj, owner=None):
        if obj is None: return self
        value = obj.__dict__[self.name] = self.make(obj)
        return value
class Uses(Generic[T]):
    big = Lazy(lambda self: [1, 2, 3])
    limit: Annotated[int, "at most"] = 5
    def __class_getitem__(cls, item): return super().__class_getitem__(item)
    def __getattr__(self, name):
        if name.startswith("get_"): return lambda: name[4:]
        raise AttributeError(name)
uses = Uses[int]()
uses.big.append(4)
# %%
scope["value"] = 9
print(uses.big, uses.get_it(), typing.get_type_hints(Uses, include_extras=True), inspect.signature(made_by_exec), Dyn().hi())
# %%
@dataclasses.dataclass(slots=True, kw_only=True)
class Order:
    items: list = dataclasses.field(default_factory=list)
    total: dataclasses.InitVar[int] = 0
    paid: bool = dataclasses.field(init=False, default=False)
    def __post_init__(self, total): self.items.append(total)
class Big(Order):
    pass
order = Big(total=5)
order.extra = order
# %%
print(order.items, order.extra is order, dataclasses.fields(Order)[1].name, dataclasses.replace(Point(1), y=8), calc.twice(1), Calc.trace[-2:])
# %%
counter = types.SimpleNamespace(n=0)
def bump(): counter.n += 1; return counter.n
made_by_exec.__defaults__ = (10,)
made_by_exec.__code__ = (lambda a, b: a - b).__code__
bump()
# %%
print(made_by_exec(3), bump(), inspect.getsource(bump).strip()[:9], bump.__qualname__, Uses.big.name, Maker.__mro__[1] is object, sys.modules["__main__"].bump is bump)
