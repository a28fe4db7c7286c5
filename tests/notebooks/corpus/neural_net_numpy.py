# %%
import numpy as np
np.random.seed(0)
class Layer:
    def __init__(self, n, m):
        self.w, self.b = np.random.randn(n, m) * 0.3, np.zeros(m)
        self.params = [self.w, self.b]
    def forward(self, x):
        self.x, self.out = x, np.tanh(x @ self.w + self.b)
        return self.out
    def backward(self, grad):
        g = grad * (1 - self.out**2)
        self.grads = [self.x.T @ g, g.sum(0)]
        return g @ self.w.T
# %%
class Adam:
    def __init__(self, params, lr=0.05):
        self.params, self.lr = params, lr
        self.m = [np.zeros_like(p) for p in params]
        self.t = 0
    def step(self, grads):
        self.t += 1
        for p, m, g in zip(self.params, self.m, grads):
            m *= 0.9
            m += 0.1 * g
            p -= self.lr * m
# %%
X = np.random.rand(64, 2)
Y = (X[:, :1] > X[:, 1:]).astype(float) * 2 - 1
net = [Layer(2, 8), Layer(8, 1)]
net.append(net[0].__class__(1, 1))
optimizer = Adam([p for layer in net for p in layer.params])
losses = []
def train(steps):
    for _ in range(steps):
        out = X
        for layer in net:
            out = layer.forward(out)
        losses.append(float(((out - Y) ** 2).mean()))
        grad = 2 * (out - Y) / len(X)
        for layer in reversed(net):
            grad = layer.backward(grad)
        optimizer.step([g for layer in net for g in layer.grads])
# %%
train(20)
print(round(losses[-1], 8))
# %%
train(20)
print(round(losses[-1], 8), optimizer.params[0] is net[0].w)
# %%
train(40)
print(round(losses[-1], 8), losses[-1] < losses[0], net[0].params[1] is net[0].b)
