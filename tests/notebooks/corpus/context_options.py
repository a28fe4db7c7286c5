# %%
import pandas as pd
import numpy as np
import logging, contextvars
pd.set_option("display.max_rows", 5, "display.float_format", "{:.1f}".format)
log = logging.getLogger("study")
log.setLevel(logging.ERROR)
who = contextvars.ContextVar("who", default="nobody")
token = None
# %%
s = pd.Series(np.linspace(0, 1, 12))
s
# %%
from contextlib import contextmanager
@contextmanager
def shouting():
    yield "LOUD"
# %%
with shouting() as word:
    print(word, log.isEnabledFor(logging.WARNING), logging.getLogger("study") is log)
# %%
print(pd.get_option("display.max_rows"), s.head(2))
# %%
who.set("ann")
print(who.get())
# %%
print(who.get(), s.iloc[-1])
