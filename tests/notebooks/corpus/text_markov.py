# %%
import random, re, string, textwrap
from collections import Counter, defaultdict, deque
TEXT = """It was the best of times, it was the worst of times, it was the age of wisdom,
it was the age of foolishness, it was the epoch of belief, it was the epoch of incredulity."""
words = re.findall(r"[a-z']+", TEXT.lower())
random.seed(11)
# %%
follows = defaultdict(Counter)
for a, b in zip(words, words[1:]):
    follows[a][b] += 1
most = follows["the"].most_common(3)
# %%
def walk(start, n):
    "Yield n words."
    word = start
    for _ in range(n):
        yield word
        choices = follows.get(word)
        if not choices:
            return
        word = random.choices(list(choices), weights=choices.values())[0]
# %%
story = walk("it", 8)
patterns = {"vowels": re.compile("[aeiou]"), "names": re.compile(r"\b(?P<name>ep\w+)")}
found = patterns["names"].search(TEXT)
# %%
print(" ".join(story), most)
# %%
print(" ".join(walk("the", 6)), found["name"], found.span())
# %%
class Vocabulary(dict):
    def __missing__(self, word):
        self[word] = len(self)
        return self[word]
vocabulary = Vocabulary()
codes = [vocabulary[w] for w in words]
window = deque(codes, maxlen=5)
# %%
print(vocabulary["never-seen"], vocabulary["it"], list(window), follows["nothing"], len(follows))
# %%
table = str.maketrans({c: None for c in string.punctuation})
wrapper = textwrap.TextWrapper(width=30, subsequent_indent="  ")
letter = string.Template("Dear $name, $text")
print(wrapper.fill(TEXT.translate(table))[:70])
# %%
print(letter.substitute(name="Ann", text=len(patterns["vowels"].sub("", TEXT))), random.random())
