# %%
import asyncio
from contextlib import asynccontextmanager
gate = asyncio.Lock()
slots = asyncio.Semaphore(2)
started = asyncio.Event()
boxes = asyncio.Queue(maxsize=10)
log = []
# %%
async def producer(n):
    for i in range(n):
        await boxes.put(i)
        log.append(("put", i))
async def consumer(n):
    got = []
    for _ in range(n):
        async with slots:
            got.append(await boxes.get())
    return got
# %%
await producer(4)
first = await consumer(1)
# %%
print(first, boxes.qsize(), log[-1])
# %%
@asynccontextmanager
async def held():
    async with gate:
        log.append("in")
        yield gate
        log.append("out")
async with held() as inside:
    print(inside is gate, gate.locked())
# %%
task = asyncio.create_task(consumer(2))
answer = await task
pending = consumer(1)
# %%
print(answer, task.done(), task.result(), gate.locked(), log[-1])
# %%
print(await pending)
# %%
started.set()
await asyncio.wait_for(started.wait(), 1)
results = await asyncio.gather(producer(2), consumer(2), return_exceptions=True)
print(results, started.is_set(), boxes.empty())
# %%
async def countdown(n):
    while n:
        yield n
        n -= 1
ticks = countdown(3)
# %%
print([t async for t in ticks], len(log))
