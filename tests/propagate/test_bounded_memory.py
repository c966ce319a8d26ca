"""What a prediction holds in memory follows the graph, not the sizes of its tensors."""

import tracemalloc

import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.capture import predict as predict_module


class Rotary(nn.Module):
    """Causal attention of queries and keys that a table of angles rotates, at many positions."""

    def __init__(self, length, width=64):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        angle = torch.arange(length)[:, None] * 0.5 ** torch.arange(width // 2)[None, :]
        self.register_buffer("cos", torch.cat([angle.cos(), angle.cos()], -1))
        self.register_buffer("sin", torch.cat([angle.sin(), angle.sin()], -1))

    def turned(self, x):
        a, b = x.chunk(2, -1)
        return x * self.cos + torch.cat([-b, a], -1) * self.sin

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        return F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)


def peak_of(model, x):
    firstlight.predict(model, x, "he")  # what is kept for all predictions does not count
    tracemalloc.start()
    found = firstlight.predict(model, x, "he")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found, peak


def test_a_rotation_leaves_the_mean_square_of_every_position_alike():
    found, peak = peak_of(Rotary(1024), torch.randn(1, 1024, 64))
    drawn, *_ = [n.output.q for n in found.nodes if n.op == "linear"]
    turned = [n.output.q for n in found.nodes if n.op == "add"]
    assert len(turned) == 2
    assert all(abs(q / drawn - 1.0) < 1e-3 for q in turned)
    assert peak < 64e6  # one field of 1024 queries × 1024 keys × 64 has 537 MB


def test_a_table_of_positions_and_channels_is_not_carried_through_what_it_is_multiplied_with(monkeypatch):
    """Fields of 2,048 positions × 128 channels took a quarter of a Llama's time."""
    runs = []
    real = predict_module.summarise
    monkeypatch.setattr(predict_module, "summarise", lambda run, *rest: runs.append(run) or real(run, *rest))
    firstlight.predict(Rotary(1024), torch.randn(1, 1024, 64), "he")
    made = [s for n in runs[0].graph.nodes if n.op in ("mul", "add") for s in runs[0].signals[n.name]]
    assert len(made) == 6
    assert max(max(s.q.size, s.mean.size) for s in made) <= 1 << 15


class Blocks(nn.Module):
    """Residual blocks: their gradients are sums of earlier gradients."""

    def __init__(self, depth, length):
        super().__init__()
        self.blocks = nn.ModuleList(Rotary(length) for _ in range(depth))

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


def test_finished_gradients_do_not_keep_the_gradients_behind_them(monkeypatch):
    """80 blocks of a Llama kept 1.7 GiB in that way."""
    runs = []
    real = predict_module.summarise
    monkeypatch.setattr(predict_module, "summarise", lambda run, *rest: runs.append(run) or real(run, *rest))
    firstlight.predict(Blocks(3, 16), torch.randn(1, 16, 64), "he")
    finished = [*runs[0].gradients.values(), *runs[0].parameter_gradients.values()]
    assert len(finished) > 40
    assert not any(g.terms or g.factors for g in finished)
