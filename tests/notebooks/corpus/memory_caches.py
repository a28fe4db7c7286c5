# %%
import functools, operator
calls = []
class Solver:
    def __init__(self, base):
        self.base = base
    @functools.lru_cache(maxsize=None)
    def power(self, n):
        calls.append(n)
        return self.base ** n
    @functools.cached_property
    def table(self):
        calls.append("table")
        return [self.power(n) for n in range(4)]
def memo(func, store={}):
    @functools.wraps(func)
    def inner(*args):
        if args not in store:
            store[args] = func(*args)
        return store[args]
    inner.store = store
    return inner
# %%
two, three = Solver(2), Solver(3)
two.table; three.power(5)
@memo
def slow(n):
    calls.append(("slow", n))
    return n + 1
slow(1); slow(1)
# %%
print(two.power(3), len(calls), Solver.power.cache_info(), slow(1), slow.store)
# %%
@functools.singledispatch
def show(x): return "thing"
@show.register(list)
@show.register(tuple)
def _(x): return "[" + ", ".join(map(show, x)) + "]"
show.register(int, lambda x: f"int {x}")
# %%
by_name = operator.attrgetter("base")
second = operator.itemgetter(1, 0)
method = operator.methodcaller("power", 4)
compare = functools.cmp_to_key(lambda a, b: b.base - a.base)
# %%
print(show([1, (2, "x")]), [by_name(s) for s in sorted([two, three], key=compare)], second("ab"), method(two), calls.count(3))
# %%
Solver.power.cache_clear()
print(two.power(3), calls[-1], Solver.power.cache_info().currsize, two.table is two.table)
# %%
@functools.lru_cache
def area(w, *, h=1): return w * h
print(area(2, h=3), area(2, h=3), area.cache_info(), area.cache_parameters())
# %%
print(area(2, h=3), area.cache_info(), functools.reduce(operator.mul, range(1, 6)), show(3))
