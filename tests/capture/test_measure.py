"""`measure` on every kind of module: the numbers equal what one reads from the tensors by hand."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import firstlight
from firstlight.capture.measure import random_cotangent
from firstlight.errors import ModelError


def by_hand(model: nn.Sequential, x: Tensor, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """(output, gradient) of every child under the default loss."""
    outputs = [x.clone().requires_grad_()]
    for layer in model:
        outputs.append(layer(outputs[-1]))
    v = random_cotangent(outputs[-1], torch.Generator().manual_seed(seed))
    grads = torch.autograd.grad(outputs[-1], outputs, v)
    return list(zip(outputs, grads, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_numbers_equal_those_read_by_hand(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5), nn.Tanh()).to(dtype)
    x = torch.randn(16, 20, dtype=dtype)
    m = firstlight.measure(model, x)
    assert [n.name for n in m.nodes] == [":input", "0:linear", "1:relu", "2:linear", "3:tanh"]
    for node, (y, g) in zip(m.nodes, by_hand(model, x), strict=True):
        y, g = y.detach().double(), g.double()
        assert node.grad is not None
        assert node.output.q == pytest.approx(y.square().mean().item(), rel=1e-5)
        assert node.output.mean == pytest.approx(y.mean().item(), abs=1e-5)
        assert node.output.zero_fraction == (y == 0).double().mean().item()
        assert node.output.abs_max == y.abs().max().item()
        assert node.grad.q == pytest.approx(g.square().mean().item(), rel=1e-5)
        assert node.grad.zero_fraction == (g == 0).double().mean().item()
    assert m.nodes[-1].grad is not None
    assert m.nodes[-1].grad.q == pytest.approx(1.0, rel=2e-2 if dtype is torch.bfloat16 else 1e-6)


def test_parameters_equal_those_read_by_hand() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    x = torch.randn(16, 20)
    loss = model(x).square().mean()
    grads = torch.autograd.grad(loss, list(model.parameters()))
    m = firstlight.measure(model, x, loss=lambda y: y.square().mean())
    assert m.loss == pytest.approx(loss.item())
    for p, grad, stats in zip(model.parameters(), grads, m.parameters, strict=True):
        assert stats.q == pytest.approx(p.square().mean().item(), rel=1e-5)
        assert stats.grad_q == pytest.approx(grad.square().mean().item(), rel=1e-5)
        assert stats.grad_ratio == pytest.approx((grad.norm() / p.norm()).item(), rel=1e-5)
        assert stats.grad_abs_max == grad.abs().max().item()
        assert (stats.requires_grad, stats.received_grad, stats.uses, stats.structure) == (True, True, 1, "iid")
        w = p.detach().double() - p.mean().double()
        assert stats.kurtosis == pytest.approx((w.pow(4).mean() / w.pow(2).mean() ** 2).item(), rel=1e-4)


@dataclass
class Answer:
    logits: Tensor
    label: str
    extra: list[Tensor]


class Returns(nn.Module):
    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.wrap = nn.Linear(3, 3), nn.Linear(3, 2), wrap

    def forward(self, x: Tensor) -> Any:
        y = self.a(x).tanh()
        return self.wrap(y, self.b(y))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y, z: (y, z),
        lambda y, z: {"y": y, "deep": {"z": z, "name": "n"}},
        lambda y, z: Answer(z, "cat", [y]),
        lambda y, z: [y, (z, y.argmax(1), None)],
    ],
    ids=["tuple", "dict", "dataclass", "list"],
)
def test_whatever_a_module_returns(wrap: Callable[[Tensor, Tensor], Any]) -> None:
    m = firstlight.measure(Returns(wrap), torch.randn(6, 3))
    assert set(m.outputs) >= {":tanh", "b:linear"}
    assert m["b:linear"].grad is not None
    assert m["b:linear"].grad.q == pytest.approx(1.0, rel=1e-6)
    assert all(p.received_grad for p in m.parameters)


class Zoo(nn.Module):
    """In-place activations, a module used twice, weights used twice, a part without gradients, an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.twice.weight
        self.unused = nn.Linear(8, 8)
        self.stopped = nn.Linear(8, 8)
        self.act = nn.ReLU(inplace=True)

    @torch.no_grad()
    def aside(self, x: Tensor) -> Tensor:
        return self.stopped(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.twice(x))
        x = self.act(self.twice(x))
        x = self.tied(x + self.aside(x))
        x.mul_(2.0)
        return F.leaky_relu(x, 0.1, inplace=True)


def test_in_place_shared_tied_unused_and_stopped_parts() -> None:
    torch.manual_seed(0)
    m = firstlight.measure(Zoo(), torch.randn(32, 8))
    names = [n.name for n in m.nodes]
    assert names == [
        ":input", "twice:linear", "act:relu", "twice:linear#1", "act:relu#1", "stopped:linear", ":add", "tied:linear",
        ":mul", ":leaky_relu",
    ]  # fmt: skip
    by_name = {p.name: p for p in m.parameters}
    assert by_name["twice.weight"].aliases == ("tied.weight",)
    assert by_name["twice.weight"].tied
    assert by_name["twice.weight"].uses == 3
    assert by_name["unused.weight"].uses == 0
    assert not by_name["unused.weight"].received_grad
    assert not by_name["stopped.weight"].received_grad
    assert m["stopped:linear"].grad is None
    assert m["twice:linear"].grad is not None
    assert m["twice:linear"].output.zero_fraction == 0.0  # read before the activation overwrote it
    assert m["act:relu"].output.zero_fraction > 0.2
    assert m["twice:linear"].grad.q < m["act:relu"].grad.q


def test_gradients_around_in_place_operations_are_those_of_the_plain_ones() -> None:
    class Net(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.a, self.b, self.inplace = nn.Linear(6, 6), nn.Linear(6, 6), inplace

        def forward(self, x: Tensor) -> Tensor:
            x = F.elu(self.a(x), inplace=self.inplace)
            y = self.b(x)
            y = y.mul_(3.0) if self.inplace else y.mul(3.0)
            return F.relu(y, inplace=self.inplace)

    torch.manual_seed(0)
    plain = Net(False)
    inplace = Net(True)
    inplace.load_state_dict(plain.state_dict())
    x = torch.randn(10, 6)
    a, b = firstlight.measure(plain, x), firstlight.measure(inplace, x)
    assert [n.name for n in a.nodes] == [n.name for n in b.nodes]
    for p, q in zip(a.nodes, b.nodes, strict=True):
        assert p.output.q == pytest.approx(q.output.q, rel=1e-5)
        assert p.grad is not None
        assert q.grad is not None
        assert p.grad.q == pytest.approx(q.grad.q, rel=1e-5)  # backward kernels may round differently
        assert p.grad.zero_fraction == q.grad.zero_fraction


def test_models_that_overwrite_their_input() -> None:
    m = firstlight.measure(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)), torch.randn(8, 4))
    assert m.nodes[0].grad is not None
    assert m.nodes[0].output.zero_fraction == 0.0


def test_frozen_models_still_show_activation_gradients() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).requires_grad_(False)
    m = firstlight.measure(model, torch.randn(8, 4))
    assert all(n.grad is not None for n in m.nodes)
    assert not any(p.received_grad or p.requires_grad for p in m.parameters)
    assert any("no parameter requires a gradient" in note for note in m.notes)


def test_tokens_and_frozen_embeddings() -> None:
    model = nn.Sequential(nn.Embedding(11, 6, padding_idx=0), nn.Flatten(), nn.Linear(24, 3))
    tokens = torch.randint(11, (5, 4))
    m = firstlight.measure(model, tokens)
    assert m.nodes[0].output.dtype == "int64"
    assert m.nodes[0].grad is None
    assert m["0:embedding"].grad is not None
    model.requires_grad_(False)
    m = firstlight.measure(model, tokens)
    assert all(n.grad is None for n in m.nodes)
    assert any("no backward pass" in note for note in m.notes)


def test_sparse_gradients() -> None:
    model = nn.Sequential(nn.Embedding(50, 4, sparse=True), nn.Linear(4, 2))
    dense = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 2))
    dense.load_state_dict(model.state_dict())
    tokens = torch.randint(50, (3, 5))
    a, b = (firstlight.measure(each, tokens).parameters[0] for each in (model, dense))
    assert a.grad_q == pytest.approx(b.grad_q)
    assert a.grad_zero_fraction == pytest.approx(b.grad_zero_fraction)


@pytest.mark.parametrize("wrap", [torch.no_grad, torch.inference_mode])
def test_models_that_switch_gradients_off(wrap: Any) -> None:
    class Off(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            with wrap():
                return self.a(x)

    m = firstlight.measure(Off(), torch.randn(4, 3))
    assert [n.name for n in m.nodes] == [":input", "a:linear"]
    assert m["a:linear"].grad is None
    assert any("does not require a gradient" in note for note in m.notes)


def test_train_and_eval_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Dropout(0.5))
    x = torch.randn(32, 4)
    train = firstlight.measure(model, x)
    model.eval()
    test = firstlight.measure(model, x)
    assert (train.training, test.training) == (True, False)
    assert train["1:batch_norm"].output.q == pytest.approx(1.0, rel=1e-3)
    assert test["1:batch_norm"].output.q != pytest.approx(1.0, rel=1e-3)
    assert train["2:dropout"].output.zero_fraction > 0.4


def test_without_a_backward_pass() -> None:
    m = firstlight.measure(nn.Linear(3, 2), torch.randn(4, 3), backward=False)
    assert all(n.grad is None for n in m.nodes)
    assert not any(p.received_grad for p in m.parameters)
    assert math.isfinite(m.loss)


def test_losses_of_one_and_two_arguments() -> None:
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    one = firstlight.measure(model, x, loss=lambda y: y.mean())
    two = firstlight.measure(model, x, loss=lambda y, batch: y.mean() + 0 * batch.sum())
    assert one.loss == pytest.approx(two.loss)
    assert one.loss == pytest.approx(model(x).mean().item(), rel=1e-6)
    assert one.loss_kind == "<lambda>"
    constant = firstlight.measure(model, x, loss=lambda y: torch.tensor(1.0))
    assert any("does not require a gradient" in note for note in constant.notes)


def test_nan_is_found_at_the_operation_that_made_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.log(self.a(x)))

    m = firstlight.measure(Net(), torch.randn(16, 4))
    first = next(n for n in m.nodes if not n.output.finite)
    assert first.name == ":log"
    assert first.output.nan_count > 0
    assert m["a:linear"].output.finite
    assert math.isnan(m.loss)
    assert m.parameters[2].grad_nan_count > 0
    assert "NaN" in str(m)


def test_overflow_in_half_precision() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).half()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(100.0)
    m = firstlight.measure(model, torch.full((4, 64), 10.0, dtype=torch.float16))
    assert m["0:linear"].output.fp16_overflow < 0.02
    assert m["1:linear"].output.inf_count == 4 * 64


def test_units_of_convolutions_are_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 9, 2))
    with torch.no_grad():
        model[0].weight[4].zero_()
        model[0].bias[4] = -1.0
    m = firstlight.measure(model, torch.randn(5, 3, 8, 8))
    assert [n.output.units for n in m.nodes] == [3, 6, 6, 6, 54, 2]
    assert m["1:relu"].output.dead_index == (4,)
    assert m["3:flatten"].output.dead_units == 9
    assert m["1:relu"].grad is not None
    assert m["0:conv2d"].grad.dead_units == 1


def test_recurrent_attention_and_checkpointed_parts() -> None:
    class Net(nn.Module):
        def __init__(self, reentrant: bool) -> None:
            super().__init__()
            self.rnn = nn.LSTM(6, 8, batch_first=True)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
            self.mlp = nn.Sequential(nn.Linear(8, 8), nn.GELU())
            self.reentrant = reentrant

        def forward(self, x: Tensor) -> Tensor:
            x = self.block(self.rnn(x)[0])
            return torch.utils.checkpoint.checkpoint(self.mlp, x, use_reentrant=self.reentrant)

    import torch.utils.checkpoint

    m = firstlight.measure(Net(False), torch.randn(3, 5, 6))
    assert all(p.received_grad for p in m.parameters)
    assert any(n.op == "lstm" for n in m.nodes)
    with pytest.raises(ModelError, match="use_reentrant=False"):
        firstlight.measure(Net(True), torch.randn(3, 5, 6))


def test_hugging_face_outputs() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=50, n_positions=16, use_cache=False)
    model = transformers.GPT2LMHeadModel(config)
    tokens = torch.randint(50, (2, 8))
    m = firstlight.measure(model, {"input_ids": tokens, "labels": tokens}, loss=lambda out: out.loss)
    assert m.loss == pytest.approx(math.log(50), abs=0.5)
    assert all(p.received_grad for p in m.parameters)
    tied = next(p for p in m.parameters if p.tied)
    assert tied.uses == 2


def test_no_parameters_and_no_floats() -> None:
    assert firstlight.measure(nn.ReLU(), torch.randn(4, 3)).parameters == ()

    class Argmax(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argmax(1)

    m = firstlight.measure(Argmax(), torch.randn(4, 3))
    assert any("without a floating-point tensor" in note for note in m.notes)


def test_the_cotangent_has_mean_square_one() -> None:
    for shape in [(3,), (40, 50), (1,)]:
        v = random_cotangent(torch.empty(shape), torch.Generator().manual_seed(0))
        assert v.double().square().mean().item() == pytest.approx(1.0, rel=1e-6)
    assert random_cotangent(torch.empty(3, dtype=torch.complex64), torch.Generator()).dtype == torch.complex64


def test_weights_that_are_not_what_they_seem() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64))
    with torch.no_grad():
        nn.init.orthogonal_(model[0].weight)
        model[1].weight[1:] = model[1].weight[0]
        model[2].weight.copy_(torch.randn(8, 64).repeat(8, 1))
        model[3].weight.fill_(1e-42)
    p = {s.name: s for s in firstlight.measure(model, torch.randn(8, 64)).parameters}
    assert p["0.weight"].structure == "orthogonal"
    assert p["1.weight"].structure == "identical rows"
    assert p["1.weight"].duplicate_rows == 63
    assert p["2.weight"].duplicate_rows == 56
    assert p["2.weight"].distinct_fraction == pytest.approx(0.5)
    assert (p["3.weight"].structure, p["3.weight"].subnormal_fraction, p["3.weight"].kurtosis) == (
        "constant",
        1.0,
        None,
    )
