# %%
import enum, itertools, operator
from types import MappingProxyType, SimpleNamespace
class State(enum.Enum):
    IDLE = enum.auto()
    RUN = enum.auto()
    STOP = enum.auto()
    @property
    def final(self): return self is State.STOP
class Rights(enum.Flag):
    READ = 1
    WRITE = 2
    ALL = READ | WRITE
class Level(enum.IntEnum):
    LOW, HIGH = 1, 9
# %%
handlers = {}
def on(state):
    def register(func):
        handlers[state] = func
        return func
    return register
@on(State.IDLE)
def start(machine): return State.RUN
@on(State.RUN)
def step(machine):
    machine.steps += 1
    return State.STOP if machine.steps > 2 else State.RUN
machine = SimpleNamespace(state=State.IDLE, steps=0, ids=itertools.count(100))
TABLE = MappingProxyType(handlers)
# %%
def advance(machine):
    if not machine.state.final:
        machine.state = TABLE[machine.state](machine)
    return machine.state
trail = [advance(machine), advance(machine)]
# %%
print(trail, next(machine.ids), machine.state is State.RUN, TABLE[State.RUN] is step, Rights.READ | Rights.WRITE is Rights.ALL)
# %%
def classify(thing):
    match thing:
        case {"state": State.RUN, **rest}: return "running", rest
        case [Level.LOW, *more]: return "low", more
        case SimpleNamespace(steps=n) if n > 1: return "moved", n
        case _: return "?", None
# %%
print(classify({"state": machine.state, "x": 1}), classify([Level.LOW, 2]), classify(machine), sorted([Level.HIGH, Level.LOW]))
# %%
def accumulator():
    total = 0
    while True:
        value = yield total
        if value is None:
            return total
        total += value
adder = accumulator()
next(adder)
added = [adder.send(3), adder.send(4)]
# %%
print(added, advance(machine), advance(machine), machine.steps)
# %%
print(adder.send(10))
