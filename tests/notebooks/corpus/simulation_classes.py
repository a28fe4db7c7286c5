# %%
from dataclasses import dataclass, field
from enum import Enum, auto, Flag
import heapq, random
random.seed(11)
# %%
class Kind(Enum):
    ARRIVE = auto()
    LEAVE = auto()
class Mode(Flag):
    FAST = auto()
    LOUD = auto()
@dataclass(order=True)
class Event:
    at: float
    kind: Kind = field(compare=False)
    who: int = field(compare=False, default=0)
@dataclass(frozen=True)
class Config:
    rate: float = 0.5
    mode: Mode = Mode.FAST | Mode.LOUD
    tags: tuple = ()
# %%
class Shop:
    def __init__(self, config):
        self.config, self.events, self.inside, self.log = config, [], set(), []
    def at(self, time, kind, who):
        heapq.heappush(self.events, Event(time, kind, who))
    def step(self):
        event = heapq.heappop(self.events)
        if event.kind is Kind.ARRIVE:
            self.inside.add(event.who)
            self.at(event.at + random.expovariate(self.config.rate), Kind.LEAVE, event.who)
        else:
            self.inside.discard(event.who)
        self.log.append((round(event.at, 3), event.kind.name, event.who))
# %%
shop = Shop(Config())
for n in range(6):
    shop.at(random.random() * 5, Kind.ARRIVE, n)
for _ in range(4):
    shop.step()
# %%
print(shop.log, shop.inside)
# %%
for _ in range(4):
    shop.step()
print(shop.log[-2:], Kind(1) is Kind.ARRIVE, shop.events[0].kind in Kind, Mode.FAST in shop.config.mode)
# %%
print(shop.config == Config(), hash(Config()) == hash(shop.config), {Kind.ARRIVE: 1}[Kind["ARRIVE"]])
# %%
while shop.events:
    shop.step()
print(len(shop.log), shop.inside, random.random())
