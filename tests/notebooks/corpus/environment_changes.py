# %%
import os, sys, warnings, decimal, tempfile, locale
home = tempfile.mkdtemp()
os.makedirs(os.path.join(home, "pkg"), exist_ok=True)
with open(os.path.join(home, "pkg", "shapes.py"), "w") as f:
    f.write("SIDES = 4\ndef square(x):\n    return x * x\nclass Shape:\n    def __init__(self, n):\n        self.n = n\n")
os.chdir(home)
sys.path.insert(0, os.path.join(home, "pkg"))
os.environ["MY_SETTING"] = "on"
# %%
import shapes
from shapes import square as sq, Shape
import collections.abc as cabc
shape = Shape(5)
decimal.getcontext().prec = 6
warnings.filterwarnings("ignore", message="quiet.*")
sys.setrecursionlimit(4321)
# %%
print(os.path.basename(os.getcwd()) == os.path.basename(home), os.environ["MY_SETTING"], sq(4), shape.n)
# %%
print(decimal.Decimal(1) / 3, sys.getrecursionlimit(), isinstance([], cabc.Sequence))
# %%
with warnings.catch_warnings(record=True) as seen:
    warnings.warn("quiet please")
    warnings.warn("loud")
print(len(seen))
os.environ.pop("MY_SETTING")
# %%
print("MY_SETTING" in os.environ, isinstance(shape, shapes.Shape), shapes.square is sq)
# %%
print(os.path.exists("pkg/shapes.py"), decimal.getcontext().prec)
