# %%
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
X = torch.randn(200, 4)
y = (X.sum(1) > 0).long()
# %%
class Net(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(hidden, 2)
    def forward(self, x):
        return self.head(self.body(x))
net = Net()
optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)
scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
loader = DataLoader(TensorDataset(X, y), batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(1))
history = []
# %%
def epoch():
    net.train()
    for xb, yb in loader:
        optimiser.zero_grad()
        loss = F.cross_entropy(net(xb), yb)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
    schedule.step()
    history.append(round(loss.item(), 5))
    return history[-1]
epoch()
# %%
print(epoch(), schedule.get_last_lr(), scaler.get_scale())
# %%
best = {name: value.clone() for name, value in net.state_dict().items()}
weights = net.head.weight
features = []
handle = net.body.register_forward_hook(lambda module, inputs, output: features.append(output.mean().item()))
# %%
print(epoch(), len(features), optimiser.param_groups[0]["params"][-2] is weights, torch.rand(1))
# %%
handle.remove()
net.eval()
scores = net(X)
accuracy = (scores.argmax(1) == y).float().mean()
print(accuracy, scores.shape, scores.requires_grad, net.training)
# %%
net.load_state_dict(best)
print(net(X)[0].tolist(), weights is net.head.weight, epoch(), history)
# %%
shared = nn.ModuleDict({"a": net.head, "b": nn.Linear(2, 2)})
with torch.no_grad():
    net.head.bias.zero_()
print(shared["a"].bias, sum(p.numel() for p in shared.parameters()), [g["lr"] for g in optimiser.param_groups])
