"""What cannot be predicted is refused in one clear message each, and the model is as it was."""

import copy

import pytest
import torch
from torch import nn

import firstlight
from firstlight.errors import CaptureError, FirstlightError, InputError


class Branching(nn.Module):
    """Control flow on entries that a scheme has not drawn yet."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        y = self.lin(x)
        return y if y.sum().item() > 0 else -y


def state(model):
    return copy.deepcopy(model.state_dict()), model.training, [p.grad for p in model.parameters()]


def refused(model, inputs, scheme=None, error=FirstlightError, **options):
    before, training, grads = state(model)
    with pytest.raises(error) as told:
        firstlight.predict(model, inputs, scheme, **options)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(a.is_meta or torch.equal(a.nan_to_num(7.0), before[k].nan_to_num(7.0)) for k, a in after.items())
    assert model.training == training
    assert [p.grad for p in model.parameters()] == grads
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return str(told.value)


def test_a_model_that_cannot_be_traced():
    with torch.device("meta"):
        model = Branching()
    text = refused(model, torch.empty(3, 4, device="meta"), "he", CaptureError)
    assert "test_predict_input.py" in text or "item" in text


def test_a_wrong_shape():
    text = refused(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(3, 5), "he")
    assert "5" in text
    assert "4" in text


def test_an_unknown_compute_type():
    text = refused(nn.Linear(4, 4), torch.randn(3, 4), "he", InputError, dtype="int8")
    assert "int8" in text
    assert "bfloat16" in text


@pytest.mark.parametrize(
    "inputs", [torch.zeros(3, 4, dtype=torch.complex64), torch.empty(3, 4, dtype=torch.cfloat, device="meta")]
)
def test_complex_inputs(inputs):
    assert "complex" in refused(nn.Linear(4, 4), inputs, "he")


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_sizes_of_zero(shape):
    model = nn.Linear(shape[1], 4) if shape[1] else nn.Flatten()
    text = refused(model, torch.randn(shape), "he" if shape[1] else None)
    assert "0" in text or "empty" in text


def test_live_moments_of_weights_without_entries():
    with torch.device("meta"):
        model = nn.Linear(4, 4)
    text = refused(model, torch.empty(3, 4, device="meta"), None, InputError)
    assert "weight" in text
    assert "scheme" in text


@pytest.mark.parametrize("option", [{"on_missing": "guess"}, {"scheme": "no-such-scheme"}])
def test_unknown_options(option):
    model = nn.Linear(4, 4)
    scheme = option.pop("scheme", "he")
    assert next(iter(option.values()), scheme) in refused(model, torch.randn(3, 4), scheme, **option)


def test_an_interrupt_leaves_the_model_alone():
    class Interrupted(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, x):
            self.lin(x)
            raise KeyboardInterrupt

    model = Interrupted()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        firstlight.predict(model, torch.randn(3, 4), "he")
    assert all(torch.equal(a, before[k]) for k, a in model.state_dict().items())
    assert not model.lin._forward_hooks


def test_weights_that_are_not_finite():
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    assert "NaN" in refused(nn.Sequential(model), torch.randn(3, 4), None, InputError)


def test_a_function_of_tensors_is_no_factory():
    with pytest.raises(InputError, match="a function that needs x and y"):
        firstlight.predict(lambda x, y: x + y, torch.randn(3, 4), "he")
    assert firstlight.predict(lambda width=8: nn.Linear(4, width), torch.randn(3, 4), "he").p_start > 0.5
