# %%
import threading, queue, time
from concurrent.futures import ThreadPoolExecutor, as_completed
lock = threading.Lock()
again = threading.RLock()
ready = threading.Event()
jobs = queue.Queue()
total = 0
# %%
class Account:
    def __init__(self, owner, balance=0):
        self.owner, self.balance = owner, balance
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
    def pay(self, amount):
        with self._changed:
            self.balance += amount
            self._changed.notify_all()
        return self.balance
account = Account("ann")
# %%
def add(n):
    global total
    with lock:
        total += n
    account.pay(n)
    return n * n
with ThreadPoolExecutor(4) as pool:
    squares = sorted(pool.map(add, range(10)))
# %%
print(total, account.balance, squares[-1])
# %%
for n in range(5):
    jobs.put((n, f"job {n}"))
ready.set()
done = []
def worker():
    while True:
        try:
            n, name = jobs.get_nowait()
        except queue.Empty:
            return
        with again, again:
            done.append(name)
        jobs.task_done()
# %%
threads = [threading.Thread(target=worker) for _ in range(2)]
for t in threads: t.start()
for t in threads: t.join()
jobs.join()
print(sorted(done), ready.is_set(), jobs.qsize())
# %%
limit = threading.BoundedSemaphore(2)
with limit:
    print(account.pay(5), lock.locked(), account._changed._lock is account._lock)
# %%
stack = queue.LifoQueue()
stack.put("a"); stack.put("b")
best = queue.PriorityQueue()
best.put((2, "low")); best.put((1, "high"))
workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="mine")
# %%
print(stack.get(), best.get(), workers.submit(pow, 2, 5).result(), threading.active_count() > 0)
# %%
with lock:
    total += 1
print(total, add(3), total)
workers.shutdown()
