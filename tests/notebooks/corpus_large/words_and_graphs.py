# %%
import networkx as nx
import nltk
import sympy
from nltk.collocations import BigramCollocationFinder
from nltk.metrics import BigramAssocMeasures
words = "the cat sat on the mat the cat ran to the dog the dog sat".split()
grammar = nltk.CFG.fromstring("S -> NP VP\nNP -> 'the' N\nN -> 'cat' | 'dog'\nVP -> 'sat' | 'ran'")
# %%
counts = nltk.FreqDist(words)
pairs = nltk.ConditionalFreqDist(nltk.bigrams(words))
parser = nltk.ChartParser(grammar)
finder = BigramCollocationFinder.from_words(words)
graph = nx.DiGraph()
graph.add_weighted_edges_from((a, b, pairs[a][b]) for a in pairs for b in pairs[a])
# %%
print(counts.most_common(2), [str(t) for t in parser.parse("the cat sat".split())])
# %%
neighbours = graph.adj["the"]
paths = nx.all_simple_paths(graph, "cat", "dog", cutoff=4)
x = sympy.Symbol("x")
curve = sympy.Lambda(x, x ** 2 + sympy.Function("f")(x))
# %%
graph.add_edge("the", "bird", weight=9)
print(len(neighbours), sorted(map(len, paths)), finder.nbest(BigramAssocMeasures.raw_freq, 1))
# %%
ranks = nx.pagerank(graph)
tagger = nltk.UnigramTagger([[("the", "D"), ("cat", "N")]], backoff=nltk.DefaultTagger("X"))
print(max(ranks, key=ranks.get), tagger.tag(["the", "cat", "flew"]), curve(3))
# %%
print(sympy.diff(curve(x), x), graph.edges["the", "bird"], nltk.edit_distance("cat", "cut"))
