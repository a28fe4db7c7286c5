# %%
import decimal, fractions, locale, logging, sys, warnings
import numpy as np
import pandas as pd
frame = pd.DataFrame({"x": np.linspace(0, 1, 30), "long_name": ["abcdefghij" * 4] * 30})
# %%
pd.set_option("display.max_rows", 6, "display.precision", 2)
pd.options.display.max_colwidth = 12
np.set_printoptions(precision=3, suppress=True, formatter={"bool": lambda b: "Y" if b else "N"})
np.seterr(invalid="raise", divide="ignore")
decimal.getcontext().prec = 6
decimal.getcontext().rounding = decimal.ROUND_DOWN
# %%
frame
# %%
print(np.array([1.23456, 1e-9]), np.array([True, False]), decimal.Decimal(2) / 3)
# %%
warnings.filterwarnings("ignore", message="old way")
warnings.simplefilter("always", DeprecationWarning)
caught = warnings.catch_warnings(record=True)
sys.setrecursionlimit(2500)
# %%
with warnings.catch_warnings(record=True) as seen:
    warnings.warn("old way, really")
    warnings.warn("new", DeprecationWarning)
    warnings.warn("new", DeprecationWarning)
print([str(w.message) for w in seen], sys.getrecursionlimit())
# %%
try:
    np.log(np.array([-1.0]))
except FloatingPointError as error:
    print(error)
with np.printoptions(precision=1):
    print(np.array([1.23456]))
# %%
def deep(n): return 0 if n == 0 else 1 + deep(n - 1)
print(deep(1500), pd.get_option("display.max_rows"), np.array([0.12345]), decimal.getcontext().rounding)
# %%
pd.reset_option("display.max_rows")
with decimal.localcontext() as local:
    local.prec = 3
    print(decimal.Decimal(1) / 3)
print(len(frame), decimal.Decimal(1) / 3, repr(frame["x"]).splitlines()[-1])
