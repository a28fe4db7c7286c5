# %%
import pandas as pd
import numpy as np
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo
# %%
np.random.seed(3)
index = pd.date_range("2024-03-30", periods=96, freq="h", tz="Europe/Berlin")
load = pd.Series(np.random.rand(96).cumsum(), index=index, name="load")
# %%
rolling = load.rolling("6h")
smooth = rolling.mean()
berlin = ZoneInfo("Europe/Berlin")
start = datetime(2024, 3, 31, 1, 30, tzinfo=berlin)
# %%
print(smooth.iloc[[0, 10, -1]].round(4).to_string())
print(start + timedelta(hours=2), start.astimezone(timezone.utc))
# %%
daily = load.resample("D")
print(daily.max().round(3).to_dict())
# %%
print(rolling.max().iloc[-1].round(5), np.random.rand(3).round(6))
# %%
multi = pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["k", "n"])
frame = pd.DataFrame({"v": range(4)}, index=multi)
view = frame.xs("a")
view
# %%
frame.loc[("a", 1), "v"] = 100
frame.unstack()
