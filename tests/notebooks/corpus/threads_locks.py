# %%
import threading, queue, time
lock = threading.Lock()
done = []
def work(n):
    with lock:
        done.append(n)
# %%
threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
for t in threads: t.start()
for t in threads: t.join()
# %%
print(sorted(done))
# %%
local = threading.local()
total = sum(done)
# %%
print(total, len(done))
# %%
with lock:
    done.append(99)
print(done[-1])
