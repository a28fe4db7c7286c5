# %%
import copy, weakref
from abc import ABC, abstractmethod
from functools import singledispatchmethod, total_ordering, cached_property, partialmethod
class Singleton(type):
    made = {}
    def __call__(cls, *args, **kwargs):
        if cls not in Singleton.made:
            Singleton.made[cls] = super().__call__(*args, **kwargs)
        return Singleton.made[cls]
class Shop(metaclass=Singleton):
    def __init__(self, name="shop"):
        self.name, self.items, self.watchers = name, [], weakref.WeakSet()
# %%
@total_ordering
class Item(ABC):
    count = 0
    registry = {}
    def __init_subclass__(cls, kind=None, **rest):
        super().__init_subclass__(**rest)
        Item.registry[kind or cls.__name__] = cls
    def __init__(self, price):
        type(self).count += 1
        self._price = price
    @property
    def price(self): return self._price
    @price.setter
    def price(self, value):
        if value < 0:
            raise ValueError("negative")
        self._price = value
    def __eq__(self, other): return self.price == other.price
    def __lt__(self, other): return self.price < other.price
    def __hash__(self): return id(self)
    @abstractmethod
    def label(self): ...
class Book(Item, kind="book"):
    __slots__ = ("title",)
    def __init__(self, title, price):
        super().__init__(price)
        self.title = title
    def label(self): return f"book {self.title}"
    @cached_property
    def slug(self): return self.title.lower().replace(" ", "-")
class Pen(Item, kind="pen"):
    def label(self): return "pen"
    @singledispatchmethod
    def write(self, what): return "?"
    @write.register
    def _(self, what: int): return "#" * what
    @write.register
    def _(self, what: str): return what.upper()
    red = partialmethod(write, "red")
# %%
shop = Shop("corner")
book, pen = Book("Dune Messiah", 9), Pen(1)
shop.items += [book, pen, book]
owned = {book: "mine"}
class Watcher:
    def __init__(self, shop):
        self.shop, self.seen = shop, 0
        shop.watchers.add(self)
watcher = Watcher(shop)
# %%
print(Shop() is shop, [i.label() for i in shop.items], sorted(shop.items)[0] is pen, Item.registry["pen"] is Pen, Book.count)
# %%
old_pen = pen
class Pen(Item, kind="pen2"):
    def label(self): return "new pen"
pen = Pen(2)
# %%
print(isinstance(old_pen, Pen), type(old_pen).__name__, old_pen.write(3), old_pen.red(), pen.label(), list(Item.registry))
# %%
clone = copy.deepcopy(shop.items)
print(clone[0] is clone[2], clone[0] is book, owned.get(book), len(shop.watchers), watcher in shop.watchers)
# %%
class Cup(Item, kind="cup"):
    label = lambda self: "cup"
try:
    Item(3)
except TypeError as error:
    print(str(error)[:40])
print(book.slug, vars(book), Cup(4) > pen, list(Item.registry), Item.__subclasses__()[-1] is Cup)
# %%
old_pen.__class__ = Cup
def shout(self): return self.label().upper()
pen.shout = shout.__get__(pen)
Book.shout = shout
# %%
print(old_pen.label(), pen.shout(), book.shout(), Shop().name, next(iter(shop.watchers)).shop is shop)
