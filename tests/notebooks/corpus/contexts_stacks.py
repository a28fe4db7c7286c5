# %%
import contextlib, contextvars, io, sys
user = contextvars.ContextVar("user", default="nobody")
depth = contextvars.ContextVar("depth")
events = []
@contextlib.contextmanager
def tag(name):
    events.append(f"<{name}>")
    try:
        yield name
    finally:
        events.append(f"</{name}>")
class Timer(contextlib.ContextDecorator):
    def __enter__(self):
        events.append("start")
        return self
    def __exit__(self, *rest):
        events.append("stop")
        return False
# %%
token = user.set("ann")
stack = contextlib.ExitStack()
stack.enter_context(tag("a"))
stack.callback(events.append, "called")
@Timer()
def work(x):
    return x + 1
quiet = contextlib.suppress(ZeroDivisionError)
# %%
print(user.get(), depth.get("none"), events, work(1))
# %%
with quiet:
    1 / 0
text = io.StringIO()
with contextlib.redirect_stdout(text):
    print("inside")
# %%
stack.close()
print(events[-2:], text.getvalue())
# %%
here = contextvars.copy_context()
def inner():
    user.set("bob")
    depth.set(3)
    return user.get(), depth.get()
print(here.run(inner), user.get())
# %%
print(user.get(), depth.get("none"), work(5), events.count("stop"))
# %%
with contextlib.ExitStack() as both:
    names = [both.enter_context(tag(n)) for n in "xy"]
    deferred = both.pop_all()
print(names, events[-1])
# %%
deferred.close()
print(events[-2:])
# %%
closing = contextlib.closing(text)
with closing as t:
    t.write("more")
print(t.closed)
