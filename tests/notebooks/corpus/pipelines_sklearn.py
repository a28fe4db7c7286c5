# %%
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import make_scorer
from sklearn.model_selection import cross_val_score, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
random = np.random.RandomState(4)
data = pd.DataFrame({"age": random.randint(18, 80, 120), "town": random.choice(["a", "b", "c"], 120), "pay": random.rand(120)})
target = (data.age + 20 * (data.town == "a") > 50).astype(int)
# %%
class Clip(TransformerMixin, BaseEstimator):
    made = 0
    def __init__(self, low=0, high=1):
        self.low, self.high = low, high
        Clip.made += 1
    def fit(self, X, y=None):
        self.seen_ = len(X)
        return self
    def transform(self, X):
        return np.clip(X, self.low, self.high)
columns = ColumnTransformer([
    ("number", Pipeline([("clip", Clip(20, 70)), ("scale", StandardScaler())]), ["age", "pay"]),
    ("town", OneHotEncoder(), ["town"]),
    ("log", FunctionTransformer(lambda X: np.log1p(X)), ["pay"]),
])
# %%
model = Pipeline([("columns", columns), ("classify", LogisticRegression())]).fit(data, target)
stream = SGDClassifier(random_state=random)
stream.partial_fit(data[["age", "pay"]].values / 80, target, classes=[0, 1])
None
# %%
print(round(model.score(data, target), 4), columns.transformers[0][1].named_steps["clip"].high)
# %%
def profit(y, guess): return float((y == guess).sum() * 2 - (y != guess).sum())
scorer = make_scorer(profit)
folds = KFold(3, shuffle=True, random_state=random)
print(cross_val_score(clone(model), data, target, cv=folds, scoring=scorer).round(3))
# %%
stream.partial_fit(data[["age", "pay"]].values / 80, target)
print(stream.coef_.round(6), round(random.rand(), 6))
# %%
model.set_params(classify__C=0.1).fit(data, target)
print(model["classify"].coef_.round(5)[0][:3], model["columns"] is model.named_steps["columns"])
# %%
print(clone(model).get_params()["classify__C"], stream.random_state is random, isinstance(columns.transformers[0][1][0], Clip), model.predict(data)[:5])
