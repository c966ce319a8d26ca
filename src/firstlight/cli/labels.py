"""What happens to labels that a batch brings where no loss was named: they are used and said, never dropped."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.capture.preserve import preserved
from firstlight.cli.batch import Job, bind_loss


def with_labels(module: nn.Module, job: Job, seed: int) -> tuple[Job, str]:
    """The job with the loss that its labels imply, and what to tell the user; the job itself where one was named.

    A model that takes the labels itself (Hugging Face) is given them, and the loss is what it returns. Integers that
    name one of the output's classes for each sample mean cross-entropy. For anything else the choice is the user's.
    """
    job = _split_off(module, job)
    if job.loss is not None or job.target is None:
        return job, ""
    name = job.target_name
    if name in _arguments(module):
        args, kwargs = _call(job.batch)
        job = replace(job, batch=(args, {**kwargs, name: job.target}))
        output = _output(module, job.batch)
        if output is _RAISED:
            return job, ""
        if _has_loss(output):
            return replace(job, loss=_own_loss), f"The model takes {name!r} itself: its own loss is differentiated."
        return job, f"The model takes {name!r} itself and returns no loss: a random cotangent is differentiated."
    output = _output(module, job.batch)
    if output is _RAISED:
        return job, ""
    classes = _classes(output, job.target)
    if classes:
        loss = bind_loss("cross-entropy", job.target, seed)
        return replace(job, loss=loss), (
            f"The batch has labels ({name}) for {classes} classes: cross-entropy is differentiated. "
            "Another loss: --loss NAME."
        )
    shape = tuple(job.target.shape)
    return job, (
        f"The labels of the batch ({name}, shape {shape}) are NOT used: a random cotangent is differentiated. "
        "Name a loss to use them: --loss mse, bce, cross-entropy or MODULE:FUNCTION."
    )


def _split_off(module: nn.Module, job: Job) -> Job:
    """Take the last tensor of a tuple for the labels, where the model cannot take that many arguments."""
    batch = job.batch
    if job.loss is not None or job.target is not None or not isinstance(batch, tuple) or len(batch) < 2:
        return job
    most = _most_positional(module)
    if len(batch) != most + 1 or not isinstance(batch[-1], Tensor):
        return job
    rest = batch[:-1]
    return replace(job, batch=rest[0] if len(rest) == 1 else rest, target=batch[-1], target_name="the last entry")


def _arguments(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return {}


def _most_positional(module: nn.Module) -> int:
    kinds = [p.kind for p in _arguments(module).values()]
    if not kinds or inspect.Parameter.VAR_POSITIONAL in kinds:
        return 1 << 30
    return sum(k in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for k in kinds)


def _own_loss(output: Any) -> Tensor:
    return output["loss"] if isinstance(output, Mapping) else output.loss


_own_loss.__name__ = "the model's own loss"


def _has_loss(output: Any) -> bool:
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return isinstance(loss, Tensor) and loss.numel() == 1


def _call(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a batch, in any of the forms that `load_job` makes."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if not isinstance(batch, tuple):
        return (batch,), {}
    if len(batch) == 2 and isinstance(batch[0], tuple) and isinstance(batch[1], Mapping):
        return batch[0], dict(batch[1])
    return batch, {}


def _output(module: nn.Module, batch: Any) -> Any:
    """What the model returns; `_RAISED` where it raises, which the verb will tell."""
    args, kwargs = _call(batch)
    with preserved(module), torch.no_grad():
        try:
            return module(*args, **kwargs)
        except Exception:  # noqa: BLE001 - it is the verb's to say what the model raises
            return _RAISED


_RAISED = object()


def _classes(output: Any, target: Tensor) -> int:
    """Number of classes if integer labels fit the output, one per sample and position; 0 otherwise."""
    if not isinstance(output, Tensor) or output.dim() < 2 or output.shape[1] < 2:
        return 0
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        return 0
    return output.shape[1] if tuple(target.shape) == (len(output), *output.shape[2:]) else 0
