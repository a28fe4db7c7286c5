# %%
import re, string
from collections import Counter, defaultdict
text = "the cat sat on the mat. The dog ate the cat's food; the end" * 30
pattern = re.compile(r"(?P<word>[a-z']+)", re.I)
# %%
words = [m["word"].lower() for m in pattern.finditer(text)]
counts = Counter(words)
table = str.maketrans("", "", string.punctuation)
# %%
index = defaultdict(set)
for n, word in enumerate(words):
    index[word].add(n % 7)
match = pattern.match(text)
# %%
print(counts.most_common(3), text.translate(table)[:20], pattern.flags)
# %%
chain = defaultdict(Counter)
for a, b in zip(words, words[1:]):
    chain[a][b] += 1
print(chain["the"].most_common(2), index["cat"])
# %%
index["zebra"].add(1)
counts.subtract({"the": 5})
print(counts["the"], sorted(index)[-1], pattern.sub("x", "a-b"))
# %%
template = string.Template("$who ate $what")
print(template.substitute(who="dog", what="food"), "{0!r:>8}".format("z"))
