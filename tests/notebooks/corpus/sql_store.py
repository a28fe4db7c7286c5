# %%
import sqlite3, os, tempfile
db = os.path.join(tempfile.mkdtemp(), "shop.db")
con = sqlite3.connect(db)
con.execute("create table item (name text, price real)")
con.executemany("insert into item values (?, ?)", [("pen", 1.5), ("book", 12), ("lamp", 30)])
con.commit()
# %%
cheap = con.execute("select name from item where price < ? order by name", (20,)).fetchall()
# %%
print(cheap)
def connect():
    return sqlite3.connect(db)
# %%
with connect() as other:
    print(other.execute("select count(*) from item").fetchone())
# %%
print(con.execute("select sum(price) from item").fetchone())
# %%
names = [name for (name,) in cheap]
print(names)
