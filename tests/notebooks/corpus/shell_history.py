# %%
2 ** 10
# %%
_ + 1
# %%
doubled = [2 * n for n in (_, __)]
doubled
# %%
print(Out[1], _2, In[1].strip(), _3 is doubled, _ is doubled)
# %%
import os
%env SHOP=corner
listing = !printf 'a\nb\n'
%precision 3
0.123456
# %%
%%capture shown
print("hidden")
print("lines")
# %%
print(os.environ["SHOP"], listing, listing.n == "a\nb", shown.stdout.split(), _5)
# %%
%macro -q again 2
%alias_magic -c shout time
1 / 3
# %%
doubled.append(0)
print(Out[3], Out[3] is doubled, len(In) > 5, _i2.strip(), 5)
# %%
again
# %%
%%writefile tools_of_mine.py
state = {"n": 0}
def bump():
    state["n"] += 1
    return state["n"]
# %%
import sys
sys.path.insert(0, "")
import tools_of_mine
tools_of_mine.bump()
# %%
from tools_of_mine import bump, state
print(bump(), tools_of_mine.state is state, bump is tools_of_mine.bump)
# %%
print(bump(), state, _12, [k for k in Out][:4])
