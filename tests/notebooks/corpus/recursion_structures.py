# %%
tree = {"name": "root", "children": []}
for n in range(3):
    tree["children"].append({"name": f"c{n}", "parent": tree, "children": []})
loop = [1, 2]
loop.append(loop)
# %%
class Node:
    __slots__ = ("value", "next", "__weakref__")
    def __init__(self, value, next=None):
        self.value, self.next = value, next
head = None
for n in range(2000):
    head = Node(n, head)
# %%
import weakref
ref = weakref.ref(head)
cache = weakref.WeakValueDictionary(h=head)
first = tree["children"][0]
# %%
print(loop[2] is loop, first["parent"] is tree, head.value, head.next.value)
# %%
n, length = head, 0
while n:
    n, length = n.next, length + 1
print(length)
# %%
from collections import deque, defaultdict, Counter, OrderedDict, ChainMap, namedtuple
Point = namedtuple("Point", "x y", defaults=(0,))
d = defaultdict(lambda: [0], a=[1])
queue = deque([1, 2, 3], maxlen=3)
words = Counter("mississippi")
scopes = ChainMap({}, d)
p = Point(1)
# %%
queue.append(4)
d["new"].append(5)
scopes["q"] = 1
print(queue, dict(d), words.most_common(2), p, p._replace(y=9), list(scopes.maps[1]) == list(d))
# %%
first["seen"] = True
print(tree["children"][0]["seen"], type(p) is Point, scopes.maps[1] is d)
