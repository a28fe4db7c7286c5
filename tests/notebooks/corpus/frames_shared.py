# %%
import numpy as np
import pandas as pd
rng = np.random.default_rng(5)
days = pd.date_range("2024-01-01", periods=60, freq="D", tz="Europe/Berlin")
sales = pd.DataFrame({"day": days, "shop": pd.Categorical(rng.choice(["x", "y"], 60)), "n": rng.integers(0, 9, 60)})
sales.attrs["source"] = {"by": "till"}
by_day = sales.set_index("day")
part = sales[sales.n > 3]
# %%
groups = sales.groupby("shop", observed=True)
rolling = by_day["n"].rolling("7D")
weekly = by_day["n"].resample("W")
column = sales["n"]
Kind = sales.shop.dtype
# %%
print(groups["n"].sum().tolist(), round(rolling.mean().iloc[-1], 4), weekly.sum().iloc[1], sales.attrs)
# %%
sales.loc[0, "n"] = 100
sales["double"] = sales["n"] * 2
print(column.iloc[0], part["n"].max(), by_day["n"].iloc[0], sales.shop.dtype is Kind)
# %%
pieces = iter(groups)
name, frame = next(pieces)
levels = pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["k", "m"])
wide = pd.DataFrame(rng.random((4, 2)), index=levels, columns=list("uv"))
# %%
print(name, len(frame))
# %%
wide.loc[("a", 1), "u"] = -1
styled = wide.style.format("{:.2f}").set_caption("Wide")
print(wide.xs("a").u.round(3).tolist(), wide.unstack().shape)
# %%
@pd.api.extensions.register_series_accessor("mine")
class Mine:
    def __init__(self, series): self.series = series
    def span(self): return self.series.max() - self.series.min()
print(sales.n.mine.span(), "Wide" in styled.to_html())
# %%
sales.flags.allows_duplicate_labels = False
query = "n > @limit and shop == 'x'"
limit = 5
print(len(sales.query(query)), sales.n.mine.span(), by_day.index.tz, by_day.index.freq)
# %%
nullable = pd.array([1, None, 3], dtype="Int64")
text = pd.Series(["a", None, "c"], dtype="string")
print(nullable.sum(), text.isna().sum(), sales.flags.allows_duplicate_labels, (sales.n.to_numpy() > limit).sum())
