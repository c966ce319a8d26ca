"""Every form of batch is accepted, every bad one refused with what came, what was expected and what to do."""

from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import firstlight
from firstlight.capture.inputs import check_batch, check_model
from firstlight.errors import FirstlightError, InputError, ModelError


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x: Tensor, y: Tensor | None = None, *, scale: float = 1.0, more: Any = None) -> Tensor:
        x = self.a(x) * scale
        return x if y is None else x + y


X, Y = torch.randn(4, 3), torch.randn(4, 2)
FORMS: dict[str, Any] = {
    "tensor": X,
    "tuple": (X, Y),
    "dict": {"x": X, "y": Y, "scale": 2.0},
    "user dict": UserDict({"x": X}),
    "args and kwargs": ((X,), {"scale": 2.0}),
    "list args and kwargs": ([X, Y], {}),
    "nested": ((X,), {"more": {"deep": [Y, (X,)]}}),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    m = firstlight.measure(Two(), FORMS[form])
    assert m.batch_size == 4
    assert m["a:linear"].output.shape == (4, 2)
    assert m.nodes[0].op == "input"
    assert m.nodes[0].grad is not None


def test_get_inputs_takes_any_batch() -> None:
    batch = [X, torch.tensor([0, 1, 0, 1])]
    m = firstlight.measure(
        Two(), batch, get_inputs=lambda b: b[0], loss=lambda out, b: nn.functional.cross_entropy(out, b[1])
    )
    assert m.batch_size == 4
    assert 0.1 < m.loss < 5.0


NAN = X.clone()
NAN[1, 2] = float("nan")
BAD: dict[str, tuple[Any, str]] = {
    "list": ([X, Y], "get_inputs"),
    "labels": ([0, 1, 2], "a list of 3 int"),
    "none": (None, "None"),
    "string": ("mnist", "a str 'mnist'"),
    "array": (np.zeros((2, 3)), "torch.as_tensor"),
    "empty batch": (torch.zeros(0, 3), r"shape \(0, 3\)"),
    "empty argument": ((X, torch.zeros(4, 0)), r"batch\[1\]"),
    "empty tuple": ((), "at least one torch.Tensor"),
    "empty dict": ({}, "at least one torch.Tensor"),
    "keys": ({0: X}, "the key 0"),
    "nan": (NAN, r"1 NaN and 0 infinite entries of 12, the first at \[1, 2\]"),
    "nested nan": ({"x": X, "more": [NAN]}, r"batch\['more'\]\[0\]"),
    "inf": (X / 0.0, "12 infinite"),
    "device": (X.to("meta"), "meta.*the model's device, cpu"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_batches(name: str) -> None:
    batch, words = BAD[name]
    with pytest.raises(InputError, match=words):
        firstlight.measure(Two(), batch)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("resnet", "a str 'resnet'"),
        (nn.Linear, r"Pass Linear\(\.\.\.\)"),
        (None, "None"),
        (lambda x: x, "expected a torch.nn.Module"),
        (nn.LazyLinear(3), "lazy"),
        (nn.Linear(2, 2, device="meta"), "meta"),
    ],
)
def test_bad_models(model: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        firstlight.measure(model, X)


@pytest.mark.parametrize("draws", [0, -1, 1.5, True, "3"])
def test_bad_draws(draws: Any) -> None:
    with pytest.raises(InputError, match="draws"):
        firstlight.measure(Two(), X, draws=draws)


@pytest.mark.parametrize(
    ("loss", "words"),
    [("mse", "a str 'mse'"), (lambda y: y, r"shape \(4, 2\)"), (lambda y: 3.0, "a float 3.0")],
)
def test_bad_losses(loss: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        firstlight.measure(Two(), X, loss=loss)


def test_shapes_types_and_labels_are_explained() -> None:
    with pytest.raises(ModelError, match=r"of module 'a'.*shape"):
        firstlight.measure(Two(), torch.randn(4, 5))
    with pytest.raises(ModelError, match="element type"):
        firstlight.measure(Two(), X.double())
    with pytest.raises(ModelError, match="element type"):
        firstlight.measure(Two(), torch.zeros(4, 3, dtype=torch.uint8))
    with pytest.raises(ModelError, match="labels"):
        firstlight.measure(Two(), X, loss=lambda y: nn.functional.cross_entropy(y, torch.tensor([0, 1, 2, 7])))
    with pytest.raises(ModelError, match="unexpected keyword"):
        firstlight.measure(Two(), {"z": X})


def test_errors_of_the_model_keep_their_cause() -> None:
    class Sad(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError("on purpose")

    with pytest.raises(ModelError, match="ZeroDivisionError: on purpose") as caught:
        firstlight.measure(nn.Sequential(nn.Linear(3, 3), Sad()), X)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "'1'" in caught.value.where
    assert isinstance(caught.value, FirstlightError)


def test_values_are_not_needed_where_shapes_suffice() -> None:
    model = check_model(nn.Linear(3, 2, device="meta"), materialised=False)
    inputs = check_batch(X.to("meta"), model, values=False)
    assert inputs.batch_size == 4
    assert check_batch(torch.tensor(3.0), model, values=False).batch_size == 1


def test_hostile_names_are_printed_as_they_are() -> None:
    model = nn.Sequential()
    model.add_module("[bold red]x[/] <script>", nn.Linear(3, 3))
    text = str(firstlight.measure(model, X))
    assert "[bold red]x[/] <script>:linear" in text


def test_real_numbers_where_tokens_are_expected() -> None:
    with pytest.raises(ModelError, match="Give integers below the number of tokens"):
        firstlight.measure(nn.Embedding(5, 3), torch.randn(2, 4))


class WritesThroughViews(nn.Module):
    """Masks two corners of a view of a tensor by writing to it, as attention over windows does."""

    def forward(self, x: Tensor) -> Tensor:
        scores = x.new_zeros(4, 3, 2, 8)
        scores[:, :2] = 2 * x[:, :2]
        seen = scores.view(2, 2, 6, 8).transpose(2, 1)
        for corner in (slice(0, 2), slice(-2, None)):
            part = seen[:, corner, :, :3]
            seen[:, corner, :, :3] = torch.full_like(part, -1.0).where(torch.ones(2, 1, 3, dtype=torch.bool), part)
        return seen


def test_a_view_whose_base_was_written_to_can_be_watched() -> None:
    x = torch.randn(4, 3, 2, 8, requires_grad=True)
    last = firstlight.measure(WritesThroughViews(), x).nodes[-1]
    assert last.output.q > 0.0
    assert last.grad.q == pytest.approx(1.0, rel=0.2)
