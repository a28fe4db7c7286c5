# %%
import jax
import jax.numpy as jnp
from functools import partial
key = jax.random.key(0)
key, sub = jax.random.split(key)
X = jax.random.normal(sub, (50, 3))
true = jnp.array([1.0, -2.0, 0.5])
y = X @ true
# %%
def predict(params, x):
    return x @ params["w"] + params["b"]
@jax.jit
def loss(params, x, y):
    return jnp.mean((predict(params, x) - y) ** 2)
gradient = jax.jit(jax.grad(loss))
params = {"w": jnp.zeros(3), "b": jnp.zeros(())}
# %%
@partial(jax.jit, static_argnames="rate")
def update(params, x, y, rate=0.1):
    return jax.tree.map(lambda p, g: p - rate * g, params, gradient(params, x, y))
for _ in range(10):
    params = update(params, X, y)
# %%
print(float(loss(params, X, y)) < 0.5, params["w"].round(3))
# %%
key, sub = jax.random.split(key)
noisy = y + 0.1 * jax.random.normal(sub, y.shape)
many = jax.vmap(lambda scale: loss({"w": scale * true, "b": 0.0}, X, noisy))
# %%
print(many(jnp.array([0.9, 1.0])).round(4), jax.random.uniform(key))
# %%
params = update(params, X, noisy, rate=0.05)
print(params["b"].round(4), jax.tree.structure(params))
