# %%
import numpy as np
import polars as pl
import pyarrow as pa
import lightgbm
import xgboost
rng = np.random.default_rng(2)
frame = pl.DataFrame({"town": rng.choice(["a", "b", "c"], 200), "x": rng.random(200), "z": rng.random(200)})
frame = frame.with_columns((pl.col("x") + pl.col("z") > 1).cast(pl.Int8).alias("y"))
# %%
lazy = frame.lazy().group_by("town").agg(pl.col("x").mean().alias("mean")).sort("town")
table = frame.to_arrow()
part = table.slice(10, 5)
expression = (pl.col("x") * 100).round(1)
# %%
features, target = frame.select("x", "z").to_numpy(), frame["y"].to_numpy()
boosted = xgboost.XGBClassifier(n_estimators=8, max_depth=2).fit(features, target)
light = lightgbm.LGBMClassifier(n_estimators=8, verbose=-1, random_state=0).fit(features, target)
booster = boosted.get_booster()
# %%
print(lazy.collect()["mean"].round(6).to_list(), part.num_rows, frame.select(expression)["x"][0])
# %%
print(boosted.predict_proba(features)[:2].round(4).tolist(), booster is boosted.get_booster(), booster.num_boosted_rounds())
# %%
light.fit(features, target, init_model=light.booster_)
print(light.booster_.num_trees(), light.predict(features)[:5])
# %%
data = xgboost.DMatrix(features, target)
print(xgboost.train({"max_depth": 2}, data, 2, xgb_model=booster).num_boosted_rounds())
# %%
print(part.column("x").to_pylist()[0] == frame["x"][10], table.schema.names, frame.filter(pl.col("town") == "a").height)
