# %%
import numpy as np
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split, GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.linear_model import LogisticRegression
from sklearn.base import BaseEstimator, TransformerMixin
# %%
X, y = load_iris(return_X_y=True)
Xtr, Xte, ytr, yte = train_test_split(X, y, random_state=0)
class Clip(BaseEstimator, TransformerMixin):
    def __init__(self, high=2.0):
        self.high = high
    def fit(self, X, y=None):
        self.fitted_ = True
        return self
    def transform(self, X):
        return np.clip(X, -self.high, self.high)
# %%
model = make_pipeline(StandardScaler(), Clip(), LogisticRegression(max_iter=200))
model.fit(Xtr, ytr)
scaler = model.steps[0][1]
# %%
print(round(model.score(Xte, yte), 3), scaler.mean_.round(3))
# %%
search = GridSearchCV(model, {"clip__high": [0.5, 1.0, 2.0]}, cv=3).fit(Xtr, ytr)
print(search.best_params_, round(search.best_score_, 3))
# %%
print(model.named_steps["standardscaler"] is scaler, isinstance(model[1], Clip))
scaler.mean_[0] = 100
print(model.predict(Xte[:5]))
# %%
from sklearn.ensemble import RandomForestClassifier
from sklearn.cluster import KMeans
forest = RandomForestClassifier(20, random_state=1).fit(Xtr, ytr)
clusters = KMeans(3, n_init=2, random_state=0).fit(X)
# %%
print(forest.predict(Xte[:8]), np.bincount(clusters.labels_), forest.feature_importances_.round(2))
