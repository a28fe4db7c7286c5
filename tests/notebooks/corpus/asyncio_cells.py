# %%
import asyncio
results = []
async def fetch(n):
    await asyncio.sleep(0.001 * n)
    results.append(n)
    return n * 2
# %%
answers = await asyncio.gather(*(fetch(n) for n in (3, 1, 2)))
# %%
print(answers, results)
# %%
class Pool:
    def __init__(self):
        self.done = []
    async def __aenter__(self):
        self.done.append("in")
        return self
    async def __aexit__(self, *exc):
        self.done.append("out")
# %%
async with Pool() as pool:
    pool.done.append(await fetch(0))
print(pool.done)
# %%
async def numbers():
    for n in range(3):
        yield n
print([n async for n in numbers()], results)
# %%
pool2 = Pool()
print(pool2.done, pool.done)
