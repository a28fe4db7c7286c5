# %%
import numpy as np
import pandas as pd

rng = np.random.default_rng(7)
# %%
regions = pd.Categorical(rng.choice(["north", "south", "east"], 200), categories=["south", "north", "east"], ordered=True)
df = pd.DataFrame({"region": regions, "units": rng.integers(1, 50, 200), "price": rng.normal(10, 2, 200).round(2)})
df.head(3)
# %%
df["revenue"] = df.units * df.price
by_region = df.groupby("region", observed=True)
first = df.iloc[:5]
# %%
pd.set_option("display.precision", 2)
by_region.revenue.agg(["sum", "mean"])
# %%
df.loc[0, "revenue"] = 0.0
print(first.revenue.iloc[0] == 0.0, by_region.ngroups)
# %%
top = df.nlargest(3, "revenue").set_index("region")
print(top)
print(rng.integers(0, 1000, 5))
# %%
pivot = df.pivot_table(index="region", values="units", aggfunc="sum", observed=True)
pivot.T
