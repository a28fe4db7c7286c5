# %%
history = []
best = None
def record(value):
    global best
    history.append(value)
    if best is None or value > best:
        best = value
# %%
for v in (3, 9, 4):
    record(v)
# %%
snapshot = history
print(best, len(history))
# %%
del best
try:
    best
except NameError:
    print("gone")
best = 0
# %%
record(50)
print(best, snapshot is history, snapshot[-1])
# %%
a = b = []
c = [a, b, {"a": a}]
a.append(1)
# %%
c[1].append(2)
print(a, b is a, c[2]["a"] is b, c)
# %%
t = ([],) * 2
s1, s2 = "x" * 5000, "x" * 5000
# %%
t[0].append(1)
print(t, t[0] is t[1], s1 == s2)
