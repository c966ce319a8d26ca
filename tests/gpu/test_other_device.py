"""On an accelerator everything is as on the CPU: statistics, verdicts, drawn weights, predictions; and nothing changes.

`make test-gpu` runs these where torch sees CUDA; FIRSTLIGHT_TEST_DEVICE names another device.
"""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

import firstlight
from firstlight.errors import InputError, ModelError
from tests.models import ZOO, names

DEVICE = torch.device(os.environ.get("FIRSTLIGHT_TEST_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
#: Both devices sum in an order of their own. In float64 (roundoff 1.1e-16) that moves what a network of some hundred
#: operations gives by 1e-13 or so; sums that nearly cancel (means) by that share of their terms.
CLOSE = 1e-9
#: Where torch's own kernels there (hardsigmoid, hardswish, weight norm) or the network itself (norms, rotations and
#: embeddings of time in Llama's way) compute in float32 (6e-8) for a while.
CLOSE_IN_SINGLE = 1e-5
IN_SINGLE = {
    *("mlp_hardsigmoid", "mlp_hardswish", "mlp_weight_norm"),
    *("llama_like", "experts", "hf_llama", "hf_mamba", "hf_unet2d"),
}
#: Networks that draw numbers in their forward pass, read memory that nobody wrote to, or do not run in float64.
NOT_ALIKE = {n for n in names() if "dropout" in ZOO[n].tags} | {
    "variational",
    "recurrent_by_hand",
    "hf_swin",
    "hf_mixtral",
}
#: Softmaxes that are alike on both devices up to roundoff can fall to neighbouring levels of those that are sampled
#: (`rules.attention.straying`), ten per cent apart in a moment.
LEVELS = 1e-2


def there(tree: Any) -> Any:
    """A batch on the other device."""
    return tree_map_only(Tensor, lambda t: t.to(DEVICE), tree)


def double(tree: Any) -> Any:
    return tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, tree)


def same_numbers(here: pd.DataFrame, other: pd.DataFrame, close: float = CLOSE) -> None:
    assert list(here.columns) == list(other.columns)
    assert len(here) == len(other)
    for column in here.columns:
        mine, theirs = here[column], other[column]
        if pd.api.types.is_float_dtype(mine):
            size = here[column.removesuffix("mean") + "rms"] if column in ("mean", "grad_mean") else None
            scale = np.abs(mine) if size is None else size
            off = np.abs(mine - theirs) > close * np.maximum(scale, 1e-300)
            both = (mine.isna() & theirs.isna()) | (mine == theirs)
            bad = off & ~both
            assert not bad.any(), (
                column,
                here["name"][bad].tolist()[:3],
                mine[bad].tolist()[:3],
                theirs[bad].tolist()[:3],
            )
        else:
            assert mine.tolist() == theirs.tolist(), column


@pytest.mark.parametrize("name", [n for n in names() if n not in NOT_ALIKE])
def test_zoo_is_measured_alike(name: str) -> None:
    model, args, kwargs = ZOO[name].make()
    model, batch = model.double(), double((args, kwargs))
    here = firstlight.measure(model, batch)
    other = firstlight.measure(copy.deepcopy(model).to(DEVICE), there(batch))
    assert other.device.startswith(DEVICE.type)
    a, b = here.to_frame(), other.to_frame()
    left_out = {"sampled", "grad_sampled"}
    if {"softmax", "scaled_dot_product_attention"} & set(a["op"]):
        left_out.add("grad_zero_fraction")  # what cancels under a softmax is 0 or a roundoff, as the kernel sums
    same = [c for c in a.columns if c not in left_out]
    same_numbers(a[same], b[same], CLOSE_IN_SINGLE if name in IN_SINGLE else CLOSE)


@pytest.mark.parametrize("name", names())
def test_zoo_is_predicted_alike(name: str) -> None:
    model, args, kwargs = ZOO[name].make()
    there_model, batch = copy.deepcopy(model).to(DEVICE), there((args, kwargs))
    for scheme in (None, "he"):
        here, other = firstlight.predict(model, (args, kwargs), scheme), firstlight.predict(there_model, batch, scheme)
        assert other.p_start == pytest.approx(here.p_start, abs=1e-3)
        a, b = here.to_frame(), other.to_frame()
        assert a["name"].tolist() == b["name"].tolist()
        # live weights are summed up in float32 there, in another order
        close = LEVELS if {"softmax", "scaled_dot_product_attention"} & set(a["op"]) else 1e-3
        np.testing.assert_allclose(b["q"], a["q"], rtol=close)
        np.testing.assert_allclose(b["grad_q"], a["grad_q"], rtol=close)


@pytest.mark.parametrize(
    "scheme",
    ["he", "he-uniform", "xavier", "lecun", "orthogonal", "random-walk", "he-truncated", "torch-default", "zeros"],
)
def test_drawn_bits_are_the_same_and_are_put_back(scheme: str) -> None:
    for name in ("conv_plain", "gpt_pre", "lstm"):
        model, args, kwargs = ZOO[name].make()
        other = copy.deepcopy(model).to(DEVICE)
        before = {k: v.clone() for k, v in other.state_dict().items()}
        firstlight.initialize(model, scheme, seed=3, batch=(args, kwargs))
        done = firstlight.initialize(other, scheme, seed=3, batch=there((args, kwargs)))
        for key, value in model.state_dict().items():
            assert torch.equal(value, other.state_dict()[key].cpu()), (name, key)
        done.undo()
        assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


class Busy(nn.Module):
    """Draws numbers, keeps running averages and writes to itself."""

    def __init__(self, fail: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.fail = fail

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        with torch.no_grad():
            self.conv.weight.clamp_(-0.01, 0.01)
        x = self.drop(self.norm(self.conv(x)).relu_()).mean((2, 3)) + torch.randn((), device=x.device)
        if self.fail:
            raise RuntimeError("broken on purpose")
        return self.head(x)


@pytest.mark.parametrize("fail", [False, True])
def test_nothing_changes(fail: bool) -> None:
    model = Busy(fail).to(DEVICE)
    x = torch.randn(4, 3, 9, 9, device=DEVICE)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters()]
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if DEVICE.type == "cuda" else [])]
    for act in (
        lambda: firstlight.measure(model, x),
        lambda: firstlight.measure(model, x, draws=2),
        lambda: firstlight.diagnose(model, x, F.cross_entropy, targets=torch.arange(4, device=DEVICE)),
    ):
        if fail:
            with pytest.raises(ModelError, match="broken on purpose"):
                act()
        else:
            act()
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
        now = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if DEVICE.type == "cuda" else [])]
        assert all(torch.equal(a, b) for a, b in zip(states, now, strict=True))
        assert model.training
        assert not model._forward_hooks


@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs two devices")
def test_a_batch_on_the_wrong_device_is_refused() -> None:
    model = nn.Linear(4, 4).to(DEVICE)
    for verb in (firstlight.measure, firstlight.diagnose):
        with pytest.raises(InputError, match="cpu") as caught:
            verb(model, torch.randn(2, 4))
        assert f".to('{DEVICE.type}" in str(caught.value)
    with pytest.raises((InputError, ModelError), match=r"cpu|device"):
        firstlight.diagnose(model, torch.randn(2, 4, device=DEVICE), F.cross_entropy, targets=torch.tensor([0, 1]))


@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs two devices")
def test_a_model_on_two_devices() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 5).to(DEVICE)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embed(tokens).to(DEVICE).tanh())

    model, tokens = Split(), torch.randint(50, (4, 6), generator=torch.Generator().manual_seed(0))
    measured = firstlight.measure(model, tokens).to_frame()
    assert (measured["grad_q"] > 0).sum() >= 3
    assert firstlight.predict(model, tokens).p_start > 0.9
    done = firstlight.initialize(model, "he", batch=tokens)
    assert model.head.weight.device.type == DEVICE.type
    assert model.embed.weight.device.type == "cpu"
    done.undo()
    report = firstlight.diagnose(
        model, tokens, lambda y, t: F.cross_entropy(y.flatten(0, 1), t.flatten().to(DEVICE) % 5), targets=tokens
    )
    assert report.verdict == "starts"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_autocast(kind: torch.dtype) -> None:
    model, args, kwargs = ZOO["gpt_pre"].make()
    model, batch = model.to(DEVICE), there((args, kwargs))
    plain = firstlight.measure(model, batch).to_frame()
    with torch.autocast(DEVICE.type, kind):
        cast = firstlight.measure(model, batch).to_frame()
        assert firstlight.predict(model, batch).p_start > 0.9
        assert firstlight.diagnose(model, batch).verdict == "starts"
    assert str(kind).removeprefix("torch.") in set(cast["dtype"])
    assert "float32" in set(plain["dtype"])
    linear = plain[plain["op"] == "linear"].set_index("name")["q"]
    again = cast[cast["op"] == "linear"].set_index("name")["q"]
    np.testing.assert_allclose(again[linear.index], linear, rtol=0.05)  # 8 bits a number, some tens of operations


@pytest.mark.skipif(DEVICE.type == "cpu", reason="the compiler of the other device")
def test_a_compiled_model() -> None:
    model, args, kwargs = ZOO["mlp_relu"].make()
    model, batch = model.to(DEVICE), there((args, kwargs))
    compiled = torch.compile(model)
    compiled(*batch[0], **batch[1]).sum().backward()
    for scheme in (None, "he"):
        a, b = firstlight.predict(model, batch, scheme), firstlight.predict(compiled, batch, scheme)
        np.testing.assert_allclose(b.to_frame()["q"], a.to_frame()["q"], rtol=1e-6)
    assert len(firstlight.measure(compiled, batch).to_frame()) == len(firstlight.measure(model, batch).to_frame())
    assert firstlight.diagnose(compiled, batch).verdict == firstlight.diagnose(model, batch).verdict
