# %%
import numpy as np
from scipy import integrate, interpolate, optimize, signal, stats
def pendulum(t, y, length=2.0):
    return [y[1], -9.81 / length * np.sin(y[0])]
solution = integrate.solve_ivp(pendulum, (0, 5), [0.5, 0], dense_output=True, args=(1.5,), rtol=1e-8)
# %%
curve = interpolate.CubicSpline(solution.t, solution.y[0])
steps = []
def remember(x):
    steps.append(x.copy())
fit = optimize.minimize(lambda p: (p[0] - 3) ** 2 + (p[1] + 1) ** 4, [0.0, 0.0], callback=remember)
# %%
print(solution.sol(1.0).round(6), round(float(curve(2.5)), 6), fit.success, len(steps) > 2, fit.x.round(2))
# %%
normal = stats.norm(loc=1, scale=2)
kernel = stats.gaussian_kde(np.random.default_rng(1).normal(size=200))
normal.random_state = np.random.RandomState(8)
draws = normal.rvs(3)
b, a = signal.butter(3, 0.2)
filtered = signal.lfilter_zi(b, a)
# %%
print(draws.round(6), round(float(kernel(0.0)[0]), 6))
# %%
print(normal.rvs(2).round(6), normal.cdf(1), kernel.dataset.shape)
# %%
stepper = integrate.RK45(lambda t, y: -y, 0, [1.0], 2)
while stepper.t < 0.5:
    stepper.step()
polynomial = np.polynomial.Chebyshev.fit(solution.t, solution.y[0], 9)
# %%
while stepper.status == "running":
    stepper.step()
print(round(float(stepper.y[0]), 5), round(float(polynomial(1.0)), 6), stepper.t)
# %%
smooth = np.vectorize(lambda v: v if v > 0 else 0)
view = solution.y[0][::2]
view[0] = 100
print(solution.y[0, 0], smooth([-1, 2]), stats.ttest_ind([1, 2, 3], [2, 3, 5]).pvalue.round(6), filtered.round(4))
