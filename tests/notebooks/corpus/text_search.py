# %%
import bisect, heapq, json, math
from dataclasses import dataclass, field
documents = {1: "the quick brown fox", 2: "the lazy dog sleeps", 3: "quick quick dog", 4: "a fox and a dog"}
# %%
@dataclass(order=True)
class Hit:
    score: float
    doc: int = field(compare=False)
    words: frozenset = field(default=frozenset(), compare=False, repr=False)
class Index:
    def __init__(self):
        self.postings = {}
        self.lengths = {}
    def add(self, doc, text):
        for word in text.split():
            self.postings.setdefault(word, set()).add(doc)
        self.lengths[doc] = len(text.split())
        return self
    def __contains__(self, word):
        return word in self.postings
    def __getitem__(self, word):
        return self.postings[word]
# %%
index = Index()
for doc, text in documents.items():
    index.add(doc, text)
def idf(word, index=index):
    return math.log(len(index.lengths) / len(index[word]))
# %%
class Trie:
    __slots__ = ("children", "end")
    def __init__(self):
        self.children, self.end = {}, False
    def insert(self, word):
        node = self
        for letter in word:
            node = node.children.setdefault(letter, Trie())
        node.end = True
    def words(self, prefix=""):
        if self.end:
            yield prefix
        for letter, child in sorted(self.children.items()):
            yield from child.words(prefix + letter)
trie = Trie()
for word in index.postings:
    trie.insert(word)
# %%
hits = [Hit(sum(idf(w) for w in q), d, frozenset(q)) for d, q in enumerate((["fox"], ["dog", "quick"], ["the"]))]
heapq.heapify(hits)
best = heapq.nlargest(1, hits)[0]
# %%
print(best, best is hits[1] or best is hits[2], list(trie.words())[:4], "cat" in index)
# %%
index.add(5, "fox again")
print(round(idf("fox"), 6), idf.__defaults__[0] is index, heapq.heappop(hits))
# %%
class Encoder(json.JSONEncoder):
    def default(self, thing):
        return sorted(thing) if isinstance(thing, (set, frozenset)) else super().default(thing)
text = json.dumps(index.postings, cls=Encoder, sort_keys=True)
ordered = sorted(index.postings)
# %%
bisect.insort(ordered, "cat")
print(text[:60], ordered[:4], [*trie.words("x")][-1])
