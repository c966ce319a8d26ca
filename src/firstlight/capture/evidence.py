"""Gather what the checks look at: one measurement, a few extra passes, the facts on batch and optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from firstlight.capture.axes import softmaxes
from firstlight.capture.bounds import is_linear, linear_answers
from firstlight.capture.facts import input_facts, optimizer_facts, unregistered
from firstlight.capture.inputs import GetInputs, Inputs, check_batch, check_model, described
from firstlight.capture.measure import Loss, measure
from firstlight.capture.mixing import mixing
from firstlight.capture.preserve import preserved
from firstlight.capture.probe import Levels, probe, without_noise
from firstlight.capture.tensors import map_tensors, separate
from firstlight.checks.evidence import Evidence, Mixing, Probe, Softmax
from firstlight.errors import InputError
from firstlight.graph.measurement import Measurement


def gather(
    model: nn.Module,
    batch: Any,
    loss: Loss | None,
    optimizer: torch.optim.Optimizer | None,
    *,
    targets: Any = None,
    get_inputs: GetInputs | None = None,
    seed: int = 0,
    levels: Levels | None = None,
) -> Evidence:
    """Measure and probe the drawn weights; the model comes back bit for bit.

    Args:
        model: Any module.
        batch: As for `measure`.
        loss: On the output, on (output, batch), or with `targets` on (output, targets); None for none.
        optimizer: Looked at, never stepped.
        targets: Second argument of the loss.
        get_inputs: Turns `batch` into arguments.
        seed: Of all random choices.
        levels: Losses of the answer 0, of the best constant one and of the best of all, where they are known already.

    Raises:
        InputError: If an argument cannot be used as given.
        ModelError: If the model or the loss raises.
    """
    model = check_model(model)
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError("optimizer", got=described(optimizer), expected="a torch.optim.Optimizer or None")
    on_output = _on_output(loss, batch, targets)
    inputs = check_batch(batch, model, get_inputs=get_inputs)
    training = model.training
    with without_noise(model):
        measurement = measure(model, batch, loss=on_output, get_inputs=get_inputs, seed=seed)
        seen = _softmaxes(model, inputs, measurement)
        mixed = _mixing(model, inputs)
    measurement = replace(measurement, training=training)
    try:
        looked = _look(model, inputs, on_output, seed, levels)
        if on_output is not None and is_linear(measurement):
            looked = replace(looked, loss_linear=_linear(inputs, looked.loss_constant, measurement, on_output))
    except RuntimeError as error:  # a second backward pass that the model does not allow, for one
        trainable = sum(p.requires_grad for p in model.parameters())
        looked = Probe(usable=False, trainable=trainable, notes=(f"no probe: {str(error).splitlines()[0]}",))
    return Evidence(
        measurement=measurement,
        inputs=input_facts(inputs.args, inputs.kwargs),
        targets=next(iter(input_facts((targets,), {})), None),
        unregistered=unregistered(model),
        softmaxes=seen,
        mixing=mixed,
        time_first=any(getattr(m, "batch_first", True) is False for m in model.modules()),
        probe=looked,
        optimizer=None if optimizer is None else optimizer_facts(optimizer, model),
    )


def look(
    model: nn.Module,
    batch: Any,
    loss: Loss | None,
    *,
    targets: Any = None,
    get_inputs: GetInputs | None = None,
    seed: int = 0,
    levels: Levels | None = None,
) -> Probe:
    """The probe alone, at the drawn weights only: a quick look at a copy that was drawn anew.

    Raises:
        InputError: If an argument cannot be used as given.
        RuntimeError: If the model or the loss raises.
    """
    inputs = check_batch(batch, model, get_inputs=get_inputs)
    return _look(model, inputs, _on_output(loss, batch, targets), seed, levels, moved=False)


def _look(
    model: nn.Module,
    inputs: Inputs,
    on_output: Callable[[Any], torch.Tensor] | None,
    seed: int,
    levels: Levels | None,
    moved: bool = True,
) -> Probe:
    def forward() -> Any:
        args, kwargs = map_tensors((tuple(inputs.args), dict(inputs.kwargs)), lambda t: separate(t).clone())
        return model(*args, **kwargs)

    with preserved(model, weights=True), torch.inference_mode(False):
        torch.manual_seed(seed)
        return probe(forward, model, inputs.batch_size, on_output, seed=seed, moved=moved, levels=levels)


def _softmaxes(model: nn.Module, inputs: Inputs, measured: Measurement) -> tuple[Softmax, ...]:
    """Each softmax; none where the model does not allow another pass."""
    try:
        return softmaxes(model, inputs, measured)
    except RuntimeError:
        return ()


def _mixing(model: nn.Module, inputs: Inputs) -> Mixing | None:
    try:
        return mixing(model, inputs)
    except RuntimeError:
        return None


def _linear(
    inputs: Inputs, constant: float | None, measurement: Measurement, loss: Callable[[Any], torch.Tensor]
) -> float | None:
    """The bound of all linear networks, where the inputs are one table."""
    tables = [t for t in (*inputs.args, *inputs.kwargs.values()) if isinstance(t, torch.Tensor)]
    shapes = [n.output.shape for n in measurement.nodes if n.name in measurement.outputs]
    if constant is None or len(tables) != 1 or len(shapes) != 1 or shapes[0][:1] != tables[0].shape[:1]:
        return None
    table = tables[0]
    return linear_answers(table, shapes[0], loss, constant) if table.is_floating_point() and table.dim() > 1 else None


def _on_output(loss: Loss | None, batch: Any, targets: Any) -> Callable[[Any], torch.Tensor] | None:
    """The loss as a function of the output alone."""
    from firstlight.capture.measure import takes_two

    if loss is None:
        if targets is not None:
            raise InputError("targets", got="targets without a loss", expected="loss= a callable on (output, targets)")
        return None
    if not callable(loss):
        raise InputError("loss", got=described(loss), expected="a callable on the model's output, or None")
    if targets is not None:

        def on_output(output: Any) -> torch.Tensor:
            return loss(output, targets)
    elif not isinstance(loss, nn.Module) and takes_two(loss):

        def on_output(output: Any) -> torch.Tensor:
            return loss(output, batch)
    else:

        def on_output(output: Any) -> torch.Tensor:
            return loss(output)

    on_output.__name__ = getattr(loss, "__name__", type(loss).__name__)
    return on_output
