# %%
import numpy as np
base = np.arange(24.0).reshape(4, 6)
row, col, rev = base[1], base[:, 2], base[::-1, ::2]
flat = base.ravel()
# %%
big = np.random.default_rng(0).normal(size=(500, 1000))
window = big[100:200, 50:60]
alias = big
# %%
row[0] = -1
print(base[1, 0], flat[6], np.shares_memory(base, rev))
# %%
window[:] = 0
print(big[150, 55], alias is big, window.base is big, round(float(big.sum()), 4))
# %%
people = np.array([("ann", 30, 1.7), ("bob", 25, 1.8)], dtype=[("name", "U10"), ("age", "i4"), ("h", "f8")])
ages = people["age"]
masked = np.ma.masked_array([1, 2, 3], mask=[0, 1, 0])
objects = np.array([base, {"k": base}, None], dtype=object)
strided = np.lib.stride_tricks.sliding_window_view(flat, 3)
# %%
ages[0] = 31
print(people["age"], masked.sum(), objects[0] is base, objects[1]["k"] is base, strided[6])
# %%
col[:] = 7
print(base[:, 2], rev[0, 1], base.flags.owndata, flat[2])
# %%
f = np.vectorize(lambda x: x * 2 + base[0, 0])
poly = np.poly1d([1, 0, -1])
np.set_printoptions(precision=3)
print(f([1, 2]), poly(3), np.pi * np.ones(2))
# %%
old = np.seterr(divide="ignore")
print(np.pi * np.ones(2), np.array([1.0]) / 0, np.float32(3).dtype)
