"""A network that cannot start, the reason, and the same network initialized."""

import torch
from torch import nn

import firstlight

torch.manual_seed(0)
layers = [m for _ in range(60) for m in (nn.Linear(64, 64), nn.ReLU())]
model = nn.Sequential(*layers, nn.Linear(64, 10))
x, y = torch.randn(128, 64), torch.randint(10, (128,))

print(firstlight.diagnose(model, x, nn.functional.cross_entropy, targets=y))
table = firstlight.initialize(model, "random-walk", batch=x)
print(table.to_frame()[["name", "role", "activation", "gain", "q_before", "q_after"]].head())
print(firstlight.diagnose(model, x, nn.functional.cross_entropy, targets=y).headline)
table.undo()  # the weights of before, bit for bit
