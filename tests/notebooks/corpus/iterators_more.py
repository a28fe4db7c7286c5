# %%
import itertools, operator
left, right = itertools.tee(range(6))
next(left)
letters = iter("abcdef")
pairs = zip(letters, letters)
next(pairs)
strict = zip([1, 2, 3], [4, 5, 6], strict=True)
next(strict)
# %%
runs = itertools.groupby("aabbc")
totals = itertools.accumulate([1, 2, 3, 4], operator.mul)
next(totals); next(totals)
grid = itertools.product("ab", range(2))
next(grid)
orders = itertools.permutations([1, 2, 3], 2)
next(orders)
picked = itertools.compress("abcdef", itertools.cycle([1, 0]))
next(picked)
# %%
print(list(left), next(right), list(pairs), next(strict))
# %%
print(next(totals), list(grid), next(orders), list(picked), next(letters, "end"))
# %%
table = {"a": 1, "b": 2, "c": 3}
keys = iter(table)
next(keys)
items = iter(table.items())
backwards = reversed(table)
next(backwards)
filled = itertools.zip_longest([1, 2, 3], "a", fillvalue="-")
next(filled)
small = itertools.takewhile(lambda n: n < 3, itertools.count())
next(small)
# %%
print(list(keys), list(items), list(backwards), list(filled), list(small), [(k, len(list(g))) for k, g in runs])
# %%
data = [3, 1, 2]
pops = iter(data.pop, 1)
evens = filter(lambda n: n % 2 == 0, range(10))
next(evens)
starred = itertools.starmap(pow, [(2, 3), (3, 2)])
numbered = enumerate(data, start=5)
position = iter(data)
next(position)
# %%
data.append(99)
print(list(position), list(evens), next(starred), list(numbered), right.__reduce__()[0] is not None)
# %%
print(list(pops), data, list(starred), list(itertools.islice(itertools.chain.from_iterable(["ab", "cd"]), 1, None)), list(right))
