# %%
from typing import NamedTuple, TypedDict, Protocol, Generic, TypeVar, runtime_checkable
T = TypeVar("T")
class Row(NamedTuple):
    name: str
    n: int = 0
class Movie(TypedDict):
    title: str
@runtime_checkable
class Speaks(Protocol):
    def speak(self) -> str: ...
# %%
class Stack(Generic[T]):
    def __init__(self) -> None:
        self.items: list[T] = []
    def push(self, item: T) -> "Stack[T]":
        self.items.append(item)
        return self
class Dog:
    def speak(self):
        return "wau"
# %%
rows = [Row("a", 1), Row("b")]
stack: Stack[int] = Stack[int]().push(1).push(2)
movie: Movie = {"title": "M"}
# %%
print(rows, stack.items, isinstance(Dog(), Speaks), Row._fields, movie)
# %%
print(type(rows[0]) is Row, Stack.__parameters__[0] is T, __annotations__.get("movie") is Movie)
# %%
import array, struct, uuid, fractions, operator, types
numbers = array.array("d", [1, 2, 3])
half = fractions.Fraction(1, 2)
get = operator.itemgetter(1)
space = types.SimpleNamespace(a=1, b=[numbers])
key = uuid.UUID(int=5)
view = memoryview(bytearray(b"xyz"))
# %%
numbers.append(4)
print(space.b[0] is numbers, len(space.b[0]), half + 1, get([5, 6]), key.int)
# %%
print(bytes(view))
