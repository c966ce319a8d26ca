"""What cannot be traced says so, and whatever happens the model is as it was."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from firstlight.capture.trace import shape, trace
from firstlight.errors import CaptureError, InputError, ModelError

X = torch.randn(3, 4)


class Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.register_buffer("count", torch.zeros(2))
        self.seen = []
        self.function = function

    def forward(self, *args):
        return self.function(self, *args)


def snapshot(model):
    return (
        {n: (t.clone(), t._version, id(t)) for n, t in model.state_dict(keep_vars=True).items()},
        [(id(p.grad), p.requires_grad) for p in model.parameters()],
        [
            {
                k: list(v.items()) if isinstance(v, dict) else list(v) if isinstance(v, list) else v
                for k, v in vars(m).items()
                if k != "_parameters"
            }
            for m in model.modules()
        ],
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.is_grad_enabled(),
    )


def same(a, b):
    (sa, *ra), (sb, *rb) = a, b
    assert sa.keys() == sb.keys()
    for name, (tensor, version, key) in sa.items():
        assert key == sb[name][2]
        assert torch.equal(tensor, sb[name][0])
        del version
    for left, right in zip(ra, rb, strict=True):
        if isinstance(left, torch.Tensor):
            assert torch.equal(left, right)
        elif isinstance(left, list):
            assert repr(left) == repr(right)
        else:
            assert left == right


def messy(net, x):
    net.count.add_(1)
    net.note = net.body(x)
    net.seen.append(net.note)
    random.random()
    np.random.rand()  # noqa: NPY002
    net.train(not net.training)
    torch.set_grad_enabled(False)
    return net.note + torch.rand(4)


def messy_and_failing(net, x):
    messy(net, x)
    raise ValueError("on purpose")


def depends_on_data(net, x):
    h = messy(net, x)
    return h * 2 if h.sum() > 0 else h


@pytest.mark.parametrize("function", [messy, messy_and_failing, depends_on_data])
@pytest.mark.parametrize("training", [True, False, None])
def test_the_model_is_bit_identical_afterwards(function, training):
    torch.manual_seed(0)
    model = Net(function)
    model.body[0].weight.grad = torch.ones(4, 4)
    x = X.clone()
    before = snapshot(model)
    if function is messy_and_failing:
        with pytest.raises(ModelError, match="on purpose"):
            trace(model, x, training=training)
    else:
        graph = trace(model, x, training=training)
        assert any("real run" in note for note in graph.notes) == (function is depends_on_data)
    same(snapshot(model), before)
    assert torch.equal(x, X)


def test_inputs_changed_by_the_model_are_copies():
    def forward(net, x, ids):
        x += 1
        ids += 1
        return net.body(x) if x.shape[0] else x

    x, ids = X.clone(), torch.arange(3)
    trace(Net(forward), (x, ids))
    trace(Net(lambda net, x, ids: forward(net, x, ids) if x.sum() else x), (x, ids))
    assert torch.equal(x, X)
    assert ids.tolist() == [0, 1, 2]


def test_interruption_in_the_middle():
    def stop(net, x):
        net.body(x)
        raise KeyboardInterrupt

    model = Net(stop)
    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt):
        trace(model, X)
    same(snapshot(model), before)
    assert not torch.overrides._get_current_function_mode_stack()


def test_data_dependence_on_the_meta_device_names_the_line_and_the_way_out():
    def forward(net, x):
        return net.body(x) if net.body[0](x).sum() > 0 else x

    with torch.device("meta"):
        model = Net(forward)
    line = forward.__code__.co_firstlineno + 1
    with pytest.raises(
        CaptureError, match=rf"Net, test_trace_errors.py:{line}.*Pass real inputs.*give the model real ones"
    ):
        trace(model, X)


def test_real_weights_and_a_shape_only_input_cannot_be_run_for_real():
    with pytest.raises(CaptureError, match="real inputs"):
        trace(Net(depends_on_data), shape(3, 4))


def test_a_wrong_shape_names_module_and_reason():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    with pytest.raises(ModelError, match=r"module '1.1'.*\(3x4 and 5x2\)"):
        trace(model, X)


def test_the_models_own_error_is_the_cause():
    with pytest.raises(ModelError, match=r"test_trace_errors.py:\d+.*ValueError: on purpose") as caught:
        trace(Net(messy_and_failing), X)
    assert isinstance(caught.value.__cause__, ValueError)


def test_endless_recursion():
    with pytest.raises(ModelError, match="RecursionError"):
        trace(Net(lambda net, x: net(x)), X)


def test_a_missing_argument():
    with pytest.raises(ModelError, match="missing 1 required"):
        trace(nn.Linear(4, 4))


def test_backward_inside_forward_is_recorded_on_a_real_run_and_leaves_no_gradient():
    def forward(net, x):
        net.body[0](x).sum().backward()
        return x - net.body[0].weight.grad[0]

    model = Net(forward)
    graph = trace(model, X)
    assert "real run" in graph.notes[0]
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("model", "args", "text"),
    [
        (lambda x: x, X, "torch.nn.Module"),
        (nn.Linear, X, "instance"),
        (None, X, "torch.nn.Module"),
        (nn.LazyLinear(3), X, "lazy"),
        (nn.Identity(), X.to(torch.complex64), "complex"),
        (nn.Identity(), torch.zeros(0, 4), "size zero"),
        (nn.Identity(), torch.zeros(2, 0), "size zero"),
        (nn.Identity(), "x", "a str"),
        (nn.Identity(), shape(2, dtype="float77"), "float77"),
    ],
)
def test_bad_input(model, args, text):
    with pytest.raises(InputError, match=text):
        trace(model, args)
