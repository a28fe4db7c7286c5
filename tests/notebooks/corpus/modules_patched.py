# %%
import math, json, types
tools = types.ModuleType("tools")
exec("def triple(x):\n    return x * 3\nVALUE = [1]", tools.__dict__)
# %%
mathematics = math
from json import dumps as to_json
import os.path as osp
encoder = json.JSONEncoder(sort_keys=True)
# %%
print(tools.triple(3), mathematics.sqrt(16), to_json({"b": 1}), encoder.encode({"b": 1, "a": 2}), osp.basename("/a/b"))
# %%
tools.VALUE.append(2)
print(tools.VALUE, mathematics is math)
# %%
class Encoder(json.JSONEncoder):
    def default(self, o):
        return sorted(o)
print(json.dumps({1, 3, 2}, cls=Encoder))
# %%
print(json.dumps({"s": {2, 1}}, cls=Encoder), tools.__name__)
