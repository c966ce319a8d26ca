"""`measure` leaves module and process bit-identical: after success, exceptions and interruption."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import firstlight
from firstlight.capture.preserve import preserved
from firstlight.errors import ModelError


class Busy(nn.Module):
    """Changes nearly everything that a forward pass can change."""

    def __init__(self, fail: BaseException | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4))
        self.old = torch.nn.utils.spectral_norm(nn.Linear(4, 4)) if fail is None else nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("state", torch.zeros(4), persistent=False)
        self.plain = torch.zeros(2)
        self.history: list[Tensor] = []
        self.fail = fail

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.conv.weight.clamp_(-0.01, 0.01)
            self.head.bias.data.mul_(2.0)
            self.norm.weight.data = torch.full((8,), 9.0)
            self.conv.bias[0] = 5.0
        self.calls += 1
        self.plain.add_(1.0)
        self.history.append(x)
        self.last = x
        random.random()
        np.random.rand()  # noqa: NPY002
        x = self.drop(self.norm(self.conv(x)).relu_()).mean((2, 3))
        x = self.old(self.head(x))
        self.state = self.state + x.mean(0)
        self.train(not self.training)
        self.conv.register_forward_hook(lambda *_: None)
        self.conv.bias.requires_grad_(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_dtype(torch.float32)
        if self.fail is not None:
            torch.set_grad_enabled(False)
            torch.set_default_dtype(torch.float64)
            torch.set_autocast_enabled("cpu", True)
            raise self.fail
        return x


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything that has to come back, with tensors as (id, bytes)."""
    seen: dict[str, Any] = {}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, t in tensors.items():
        grad = None if t.grad is None else (id(t.grad), t.grad.numpy().tobytes())
        seen[name] = (id(t), t.data_ptr(), t.detach().numpy().tobytes(), t.requires_grad, t.is_leaf, grad)
    for path, module in model.named_modules():
        seen[f"{path} attributes"] = {k: id(v) for k, v in vars(module).items()}
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_always_called")
        seen[f"{path} hooks"] = {k: list(getattr(module, k).items()) for k in hooks}
        seen[f"{path} training"] = module.training
        seen[f"{path} plain"] = {k: v.tolist() for k, v in vars(module).items() if isinstance(v, Tensor)}
        seen[f"{path} lists"] = {k: list(v) for k, v in vars(module).items() if isinstance(v, list)}
    seen["numpy"] = [str(part) for part in np.random.get_state()]  # noqa: NPY002
    seen["python"] = random.getstate()
    seen["torch"] = torch.get_rng_state().tolist()
    seen["modes"] = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_autocast_enabled("cpu"))
    return seen


def prepared(model: nn.Module) -> nn.Module:
    for i, p in enumerate(model.parameters()):
        if i % 2 == 0:
            p.grad = torch.full_like(p, float(i))
    return model


def test_nothing_has_changed_after_a_pass() -> None:
    model = prepared(Busy())
    x = torch.randn(4, 3, 8, 8)
    kept = x.clone()
    before = snapshot(model)
    firstlight.measure(model, x, draws=2)
    assert snapshot(model) == before
    assert torch.equal(x, kept)
    assert x.grad is None
    assert not x.requires_grad


@pytest.mark.parametrize("fail", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_nothing_has_changed_after_the_model_raised(fail: BaseException) -> None:
    model = prepared(Busy(fail))
    x = torch.randn(4, 3, 8, 8)
    before = snapshot(model)
    with pytest.raises(BaseException) as caught:
        firstlight.measure(model, x)
    assert isinstance(caught.value, type(fail) if not isinstance(fail, Exception) else ModelError)
    assert snapshot(model) == before


@pytest.mark.parametrize("where", ["loss", "backward", "redraw"])
def test_nothing_has_changed_after_a_later_failure(where: str) -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            raise KeyboardInterrupt

    class Net(nn.Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            Net.calls += 1
            if where == "redraw" and Net.calls == 3:
                raise KeyboardInterrupt
            x = self.b(self.a(x))
            return Fails.apply(x) if where == "backward" else x

    def loss(_: Tensor) -> Tensor:
        raise KeyboardInterrupt

    model = prepared(Net())
    x = torch.randn(5, 3)
    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt):
        firstlight.measure(model, x, loss=loss if where == "loss" else None, draws=4)
    assert snapshot(model) == before


def test_callers_modes_stay_and_do_not_matter() -> None:
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    with torch.no_grad():
        a = firstlight.measure(model, x)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        b = firstlight.measure(model, x)
        assert torch.is_inference_mode_enabled()
    assert a.nodes[-1].grad is not None
    assert a == b == firstlight.measure(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        c = firstlight.measure(model, x)
        y = model(x)  # the weights that autocast cached for the measurement must not be used again
    assert c.nodes[-1].output.dtype == "bfloat16"
    y.sum().backward()


def test_embeddings_that_renormalise_themselves() -> None:
    model = nn.Embedding(10, 4, max_norm=0.1)
    before = snapshot(model)
    firstlight.measure(model, torch.arange(10).view(2, 5))
    assert snapshot(model) == before


class Writer(nn.Module):
    def __init__(self, write: Callable[["Writer"], object]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.write(self)
        return x @ self.weight


WRITES: dict[str, Callable[[Writer], object]] = {
    "method": lambda m: m.weight.mul_(2),
    "operator": lambda m: m.weight.__iadd__(1),
    "item": lambda m: m.weight.__setitem__(0, 7.0),
    "view": lambda m: m.weight.view(-1)[2:].fill_(4.0),
    "data": lambda m: m.weight.data.zero_(),
    "detached": lambda m: m.weight.detach().copy_(torch.zeros(3, 3)),
    "out": lambda m: torch.mul(torch.ones(3, 3), 5.0, out=m.weight.detach()),
    "foreach": lambda m: torch._foreach_mul_([m.weight], 3.0),
    "init": lambda m: nn.init.uniform_(m.weight),
    "functional": lambda m: nn.functional.relu(m.weight.detach().neg_(), inplace=True),
    "replaced data": lambda m: setattr(m.weight, "data", torch.zeros(3, 3)),
    "replaced": lambda m: setattr(m, "weight", nn.Parameter(torch.zeros(3, 3))),
    "resized": lambda m: m.weight.data.resize_(3, 3).zero_(),
    "set": lambda m: m.weight.set_(torch.zeros(3, 3)),
}


@pytest.mark.parametrize("how", WRITES)
def test_written_parameters_come_back(how: str) -> None:
    model = Writer(WRITES[how])
    x = torch.randn(2, 3)
    before = snapshot(model)
    firstlight.measure(model, x)
    assert snapshot(model) == before


def test_a_write_that_cannot_be_seen_is_reported_where_it_leaves_a_trace() -> None:
    model = Writer(lambda m: None)
    unseen = torch._C.DisableTorchFunction  # as a compiled extension would
    with pytest.raises(ModelError, match="weight"), preserved(model), unseen(), torch.no_grad():
        model.weight.mul_(2.0)


def test_gradients_do_not_accumulate_and_optimizer_hooks_do_not_run() -> None:
    model = nn.Linear(3, 2)
    model(torch.randn(4, 3)).sum().backward()
    grad, value = model.weight.grad, model.weight.grad.clone()
    steps: list[int] = []
    model.weight.register_post_accumulate_grad_hook(lambda p: steps.append(1))
    firstlight.measure(model, torch.randn(4, 3))
    assert model.weight.grad is grad
    assert torch.equal(grad, value)
    assert steps == []


def test_nothing_is_kept_alive() -> None:
    import gc
    import weakref

    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    x = torch.randn(4, 3)
    alive: list[weakref.ref[Tensor]] = []
    handle = model[0].register_forward_hook(lambda m, a, y: alive.append(weakref.ref(y)))
    result = firstlight.measure(model, x)
    handle.remove()
    gc.collect()
    assert alive
    assert all(ref() is None for ref in alive)
    assert math.isfinite(result.loss)


def test_the_result_depends_on_the_seed_alone() -> None:
    model, x = nn.Sequential(nn.Linear(5, 50), nn.Dropout(0.5)), torch.randn(8, 5)
    a = firstlight.measure(model, x, seed=3)
    torch.rand(7)
    assert firstlight.measure(model, x, seed=3) == a
    assert firstlight.measure(model, x, seed=4) != a
