# %%
import csv, os, pathlib, shutil, tempfile, json
work = pathlib.Path("shop data")
work.mkdir(exist_ok=True)
(work / "items.csv").write_text("name,price\npen,1\nbook,12\nlamp,30\n")
temporary = tempfile.mkdtemp()
home = os.getcwd()
# %%
os.chdir(work)
with open("items.csv") as source:
    rows = list(csv.DictReader(source))
# %%
print(os.path.basename(os.getcwd()), rows[1]["name"], source.closed, source.name)
# %%
table = open("items.csv", newline="")
reader = csv.reader(table)
header = next(reader)
first = next(reader)
# %%
print(header, first)
# %%
rest = list(reader)
print(rest)
# %%
table.close()
notes = pathlib.Path("notes.json")
notes.write_text(json.dumps({"n": len(rows)}))
out = open("log.txt", "a")
out.write("one\n")
# %%
out.write("two\n")
out.flush()
print(notes.exists(), json.loads(notes.read_text()), pathlib.Path("log.txt").read_text().split())
# %%
out.close()
os.chdir("..")
print(sorted(p.name for p in work.iterdir()), os.path.isdir(temporary), os.getcwd() == home)
# %%
shutil.rmtree(temporary)
print(os.path.exists(temporary), out.closed)
