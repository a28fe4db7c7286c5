# %%
import random
import numpy as np
random.seed(1); np.random.seed(2)
rng = np.random.default_rng(3)
own = random.Random(4)
child = rng.spawn(1)[0]
# %%
a = [random.random(), np.random.rand(), rng.random(), own.random()]
# %%
print([round(v, 6) for v in a])
# %%
print(round(random.random(), 6), round(np.random.rand(), 6), round(rng.random(), 6), round(own.random(), 6), round(child.random(), 6))
# %%
shared = {"r": rng}
shared["r"].random()
print(round(rng.random(), 6), random.gauss(0, 1), random.sample(range(100), 3))
# %%
print(np.random.randn(2).round(5), own.choice("abcdef"), rng.permutation(5), random.gauss(0, 1))
