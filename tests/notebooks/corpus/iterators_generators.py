# %%
import itertools
numbers = iter([10, 20, 30, 40])
next(numbers)
evens = itertools.count(0, 2)
for _ in range(3): next(evens)
pairs = enumerate("abcdef")
next(pairs)
zipped = zip(range(5), "vwxyz")
next(zipped)
# %%
def gen():
    for n in range(10):
        yield n * n
squares = gen()
head = [next(squares), next(squares)]
# %%
print(next(numbers), next(evens), next(pairs), next(zipped))
# %%
total = sum(head)
print(total)
# %%
print(next(numbers), list(zipped))
# %%
print(next(squares))
# %%
print(list(pairs), next(evens))
