"""The user's own module with one batch and a loss, checked once before the page opens on it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from firstlight.capture.inputs import check_batch
from firstlight.errors import InputError, ModelError
from firstlight.playground.problems import OwnModel

_FIT_TITLE = "mean square distance to fixed noise"


def own_model(
    model: nn.Module, batch: Any, loss: Callable[..., Tensor] | None = None, *, title: str = "", loss_title: str = ""
) -> OwnModel:
    """Check that the model runs on the batch and that the loss gives a scalar; the model itself is left alone.

    Args:
        model: Any module; the page trains deep copies of it.
        batch: A tensor, a tuple of positional arguments, a mapping of keyword arguments, or ``(args, kwargs)``.
        loss: From the output to a scalar. By default the mean square of (output - target) over all floating-point
            outputs, the targets drawn once from N(0, 1) with a fixed seed: something to fit.
        title: What the page calls the model; by default its class.
        loss_title: What the page calls the loss.

    Raises:
        InputError: The model cannot be copied, lies elsewhere than in main memory or has nothing to train, or the loss
            gives no scalar.
        ModelError: The model or the loss raises.
    """
    _check_place(model)
    inputs = check_batch(batch, model)
    try:
        trial = copy.deepcopy(model)
    except (TypeError, RuntimeError, AttributeError) as error:
        raise InputError(
            "model",
            got=f"a module that cannot be copied ({error})"[:200],
            expected="one that copy.deepcopy can copy",
            action="The page trains copies, so that a reset brings the first weights back.",
        ) from error
    try:
        with torch.random.fork_rng(devices=[]):
            output = trial(*inputs.args, **inputs.kwargs)
            fit = loss or _fit(output)
            value = fit(output)
    except InputError:
        raise
    except Exception as error:
        raise ModelError(
            type(model).__name__,
            got=f"{type(error).__name__}: {error}"[:300],
            expected="a model and a loss that run on the batch",
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError("loss", got=got, expected="a scalar tensor", action="Reduce it: .mean() or .sum().")
    if not value.requires_grad:
        trained = any(p.requires_grad for p in trial.parameters())
        got = "a loss that no trainable parameter reaches" if trained else "a model without trainable parameters"
        raise InputError("model", got=got, expected="weights to train", action="Set requires_grad on some of them.")
    if any(isinstance(p, UninitializedParameter) for p in model.parameters()):
        model = trial  # lazy modules take their shapes from a first pass: this was it
    name = getattr(loss, "__name__", "")
    named = loss_title or ((name if name.isidentifier() else "as given") if loss else _FIT_TITLE)
    return OwnModel(model, inputs.args, inputs.kwargs, fit, title or type(model).__name__, named)


def _check_place(model: nn.Module) -> None:
    """The page computes beside the browser: in main memory, on one processor."""
    elsewhere = next((f"{n} on {p.device}" for n, p in model.named_parameters() if p.device.type != "cpu"), None)
    if elsewhere:
        action = "Call model.cpu() and give a batch that lies there too."
        raise InputError("model", got=elsewhere, expected="parameters in main memory (cpu)", action=action)


def _fit(output: Any) -> Callable[[Any], Tensor]:
    """Mean square distance to fixed N(0, 1) targets of every floating-point tensor in an output."""
    targets = [
        torch.randn(t.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float32).to(t)
        for i, t in enumerate(_tensors(output))
    ]
    if not targets:
        raise InputError("model", got="an output without floating-point tensors", expected="one to train on")

    def distance(found: Any) -> Tensor:
        parts = [(a - b).square().mean() for a, b in zip(_tensors(found), targets, strict=True)]
        return torch.stack(parts).mean()

    return distance


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        return [t for value in output.values() for t in _tensors(value)]
    if isinstance(output, list | tuple):
        return [t for value in output for t in _tensors(value)]
    return []
