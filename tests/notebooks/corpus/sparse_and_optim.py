# %%
import numpy as np
from scipy import sparse, optimize, interpolate, stats
np.random.seed(5)
A = sparse.random(50, 50, density=0.1, format="csr", random_state=1)
B = A.T
# %%
spline = interpolate.CubicSpline([0, 1, 2, 3], [0, 1, 4, 9])
result = optimize.minimize(lambda v: ((v - 3) ** 2).sum(), np.zeros(2))
normal = stats.norm(2, 3)
# %%
print(A.nnz, round(float((A @ B).sum()), 6), spline(1.5).round(6), result.x.round(3))
# %%
A.data[0] = 1000
print(round(float(A.sum()), 4), round(normal.cdf(2), 3))
# %%
print(normal.rvs(2).round(5), type(result).__name__, result.success)
# %%
print(spline.derivative()(1.0).round(5), B.shape)
