"""How the recorder watches modules: what it leaves behind, and modules that do unusual things."""

import copy
import inspect
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import firstlight
from firstlight.capture.record import recording
from firstlight.capture.tensors import is_mask
from firstlight.errors import InputError, ModelError

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def names(model, *args):
    found = []
    with recording(model, lambda event: found.append(event.name)) as recorder:
        recorder.start(args)
        model(*args)
    return found


def test_nothing_is_left_on_the_modules_also_after_an_exception():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    before = [dict(vars(m)) for m in model.modules()]
    assert names(model, X) == [":input", "0:linear", "1:relu"]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        names(model, X[:, :3])
    assert [dict(vars(m)) for m in model.modules()] == before
    assert names(model, X) == [":input", "0:linear", "1:relu"]


def test_the_forward_of_a_watched_module_keeps_its_signature():
    class Asks(nn.Module):
        def forward(self, x, scale=2.0):
            assert list(inspect.signature(self.forward).parameters) == ["x", "scale"]
            return x * scale

    assert names(Asks(), X) == [":input", ":mul"]


def test_a_deep_copy_made_in_the_forward_pass_runs_its_own_entries():
    class Copies(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, x):
            other = copy.deepcopy(self.lin)
            with torch.no_grad():
                other.weight.zero_()
                other.bias.zero_()
            return other(x)

    model, found = Copies(), []
    with recording(model, lambda event: found.append(event.name)) as recorder:
        recorder.start((X,))
        out = model(X)
    assert found[-1] == "lin:linear"
    assert not out.any()


def _double(_module: nn.Module, _args: Any, out: Any) -> Any:
    return out * 2


def test_operations_in_the_hooks_of_a_module_count_as_its_own():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model[0].register_forward_hook(_double)
    model[1].register_forward_pre_hook(lambda _m, args: (args[0] + 1,))
    assert names(model, X) == [":input", "0:linear", "0:mul", "1:add", "1:relu"]


def test_modules_whose_call_is_no_plain_call_of_their_class_s_forward():
    class Static(nn.Module):
        @staticmethod
        def forward(x):
            return x * 2

    class Calls(nn.Module):
        def __call__(self, x):
            return super().__call__(x + 1)

        def forward(self, x):
            return x * 2

    own = nn.ReLU()
    own.__dict__["forward"] = torch.tanh
    assert names(nn.Sequential(Static(), Calls(), own), X) == [":input", "0:mul", ":add", "1:mul", "2:tanh"]
    assert own(X).equal(torch.tanh(X))
    wrapped = nn.DataParallel(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    assert names(wrapped, X) == [":input", "module.0:linear", "module.1:relu"]


def test_a_recording_inside_a_recording_has_the_same_names():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with recording(model, lambda _event: None) as recorder:
        recorder.start((X,))
        assert names(model, X) == [":input", "0:linear", "1:relu"]
    assert "forward" not in vars(model[0])


def test_a_scripted_model_is_noted_and_its_weights_are_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of scripting as such
        model = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    assert firstlight.trace(model, X).notes[0] == ("The model itself is scripted: what runs inside it cannot be seen.")
    done = firstlight.initialize(model, "he", batch=X)
    assert all("initialize before scripting" in reason for reason in done.table.left.values())
    assert done.table.changed == ()
    done.undo()  # nothing was changed, so there is nothing to do


def test_a_mask_holds_zeros_and_minus_infinities_alone():
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    assert all(is_mask(t) for t in (mask, mask.double()))
    others = (
        torch.zeros(3),
        mask == 0,
        mask.to("meta"),
        torch.tensor([0.0, 1, -torch.inf]),
        torch.tensor([0, torch.inf]),
    )
    assert not any(is_mask(t) for t in others)
    model, x = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), torch.randn(4, 5, 16)
    found = firstlight.measure(model, ((x,), {"src_mask": mask}))
    assert found.nodes[-1].output.finite
    traced = firstlight.trace(model, (x,), {"src_mask": mask})
    value = traced.constants[":input#1"].value
    assert value is not None
    assert value.shape == (5, 5)
    x[0, 0, 0] = -torch.inf  # a logarithm of zero in the data is no mask
    with pytest.raises(InputError, match="1 infinite entries"):
        firstlight.measure(model, x)


@pytest.mark.parametrize("write", [torch.add, lambda scores, mask: scores.masked_fill(mask < 0, -torch.inf)])
def test_a_causal_mask_inside_the_model_is_no_finding(write):
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(8, 24)
            self.out = nn.Linear(8, 8)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, -1)
            scores = write(q @ k.transpose(-1, -2) / 8**0.5, torch.full((5, 5), -torch.inf).triu(1))
            return x + self.out(scores.softmax(-1) @ v)

    x = torch.randn(16, 5, 8)
    assert "NUM001" not in {f.code for f in firstlight.diagnose(Attends(), x).findings}


def test_a_scale_that_the_type_cannot_hold_changes_nothing():
    model = nn.Linear(4, 4).half()
    before = model.weight.detach().clone()
    with pytest.raises(ModelError, match="float16 cannot hold"):
        firstlight.initialize(model, "constant(1e6)")
    assert torch.equal(model.weight, before)
