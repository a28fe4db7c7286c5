# %%
registry = {}
class Meta(type):
    def __new__(mcls, name, bases, space, **kwargs):
        cls = super().__new__(mcls, name, bases, space)
        registry[name] = cls
        cls.tag = kwargs.get("tag", "none")
        return cls
    def __init__(cls, name, bases, space, **kwargs):
        super().__init__(name, bases, space)
    def __len__(cls):
        return len(registry)
# %%
class Base(metaclass=Meta):
    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__()
class Child(Base, tag="kid"):
    @property
    def name(self):
        return getattr(self, "_name", "?")
    @name.setter
    def name(self, value):
        self._name = value.upper()
    @classmethod
    def build(cls, name):
        c = cls()
        c.name = name
        return c
    @staticmethod
    def twice(x):
        return x * 2
# %%
kid = Child.build("tim")
class Positive:
    def __set_name__(self, owner, name):
        self.slot = "_" + name
    def __get__(self, obj, cls=None):
        return self if obj is None else getattr(obj, self.slot)
    def __set__(self, obj, value):
        if value < 0:
            raise ValueError(value)
        setattr(obj, self.slot, value)
class Box:
    side = Positive()
box = Box()
box.side = 3
# %%
print(kid.name, Child.tag, len(Child), registry["Child"] is type(kid), Child.twice(4))
# %%
class Grand(Child, tag="grand"):
    pass
print(Grand.build("joe").name, Grand.tag, len(Grand), sorted(registry))
# %%
try:
    box.side = -1
except ValueError as error:
    problem = error
print(box.side, repr(problem))
# %%
from functools import singledispatch, cached_property, total_ordering
@singledispatch
def show(x):
    return "any"
@show.register
def _(x: int):
    return "int"
class Lazy:
    hits = 0
    @cached_property
    def value(self):
        Lazy.hits += 1
        return 42
lazy = Lazy()
lazy.value
# %%
print(show(1), show("a"), lazy.value, Lazy.hits)
# %%
@show.register(list)
def _(x):
    return "list"
print(show([]), show(True), type(Child).__name__)
