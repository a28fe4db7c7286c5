# %%
counter = 0
def make_counter():
    count = 0
    def up():
        nonlocal count
        count += 1
        return count
    def peek():
        return count
    return up, peek
# %%
up, peek = make_counter()
up(); up()
def bump():
    global counter
    counter += 1
    return counter
# %%
from functools import partial, lru_cache, wraps, reduce
calls = []
def logged(f):
    @wraps(f)
    def inner(*args, **kwargs):
        calls.append(f.__name__)
        return f(*args, **kwargs)
    inner.calls = 0
    return inner
@logged
def area(w, h=2):
    "Area."
    return w * h
# %%
double = partial(area, h=20)
adders = [lambda x, n=n: x + n for n in range(3)]
late = [lambda: i for i in range(3)]
# %%
print(up(), peek(), bump(), counter, double(3), calls)
# %%
print([f(10) for f in adders], [f() for f in late], area.__doc__, area.__wrapped__(2, 2), area.__name__)
# %%
counter = 40
print(bump(), up(), peek(), area.calls, len(calls))
# %%
@lru_cache(maxsize=None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
print(fib(50))
# %%
print(fib(60), fib.__wrapped__.__name__)
compose = reduce(lambda f, g: lambda x: f(g(x)), adders)
# %%
print(compose(1), make_counter.__closure__, bump.__globals__ is globals(), up.__globals__ is globals())
