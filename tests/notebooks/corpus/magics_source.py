# %%
import inspect
def area(r):
    # pi is about three
    return 3 * r * r
# %%
%precision 3
3.14159265
# %%
class Thing:
    def speak(self):
        return "hi"
# %%
print(inspect.getsource(area).splitlines()[1].strip())
# %%
2.718281828
# %%
%%capture captured
print("caught")
# %%
print(captured.stdout.strip(), area(2))
# %%
print(inspect.signature(area), inspect.getsource(Thing.speak).strip().splitlines()[0])
# %%
import traceback
try:
    area("x")
except TypeError:
    print("3 * r * r" in traceback.format_exc())
