# %%
import csv, io, os, tempfile
folder = tempfile.mkdtemp()
path = os.path.join(folder, "rows.csv")
with open(path, "w") as f:
    csv.writer(f).writerows([[1, 2], [3, 4], [5, 6]])
# %%
handle = open(path)
first = handle.readline()
buffer = io.StringIO("one\ntwo\nthree\n")
buffer.readline()
raw = io.BytesIO(b"abcdef"); raw.seek(2)
# %%
print(first.strip(), buffer.readline().strip(), raw.read(2))
# %%
rows = list(csv.reader(open(path)))
print(rows, buffer.tell(), raw.tell())
# %%
print(handle.readline().strip())
# %%
print(sum(int(a) for a, b in rows))
