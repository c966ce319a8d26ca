"""One real forward and backward pass, watched: statistics of every operation's output and of its gradient.

The recorder (`capture.record`) hands over each operation as it runs; its output is read at once and a hook on it reads
its gradient when that comes back. Nothing of an activation's size is kept.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.capture.gathering import Gathering
from firstlight.capture.inputs import GetInputs, Inputs, check_batch, check_model, described
from firstlight.capture.parameters import parameter_stats, use_counts
from firstlight.capture.preserve import WriteGuard, preserved
from firstlight.capture.record import recording
from firstlight.capture.redraw import Pass, Redraw, with_draws
from firstlight.capture.tensors import is_sparse, map_tensors, named_tensors, separate
from firstlight.errors import FirstlightError, InputError, ModelError
from firstlight.graph.measurement import Measurement, NodeStats, ParameterStats, TensorStats

Loss = Callable[..., Tensor]


def measure(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    draws: int = 1,
    redraw: Redraw | None = None,
    law: str = "empirical law of each parameter",
    get_inputs: GetInputs | None = None,
    seed: int = 0,
    backward: bool = True,
) -> Measurement:
    """Run `model` once forward and once backward on `batch` and return the statistics of all that passed.

    An operation whose outputs are all integers or booleans (argmax, a mask, positions) has no length and no gradient:
    it gets no record, unless it is an input.

    The module, its gradients and the process' random number generators come back bit-identical, also after an
    exception.

    Args:
        model: Any module whose weights hold numbers; in the mode (train, eval) in which it is to be looked at.
        batch: A tensor, a tuple of positional arguments, a mapping of keyword arguments, or ``(args, kwargs)``.
        loss: Called with the model's output, or with the output and `batch` if it takes two arguments; returns a
            scalar. By default the loss is Σ v·y over all floating-point outputs y with a fixed random cotangent v,
            normal and scaled to mean square 1 for each output tensor: ∂loss/∂y has q = 1.
        draws: Number K of re-draws of the weights; for K > 1 each operation carries the distribution of ln q.
        redraw: Overwrites the weights from a seed; by default each parameter's own empirical law.
        law: What the law of `redraw` is called.
        get_inputs: Turns `batch` into one of the forms above.
        seed: Of the random cotangent, the re-draws, and of what the model itself draws (dropout).
        backward: False to leave out the backward pass.

    Returns:
        The measurement.

    Raises:
        InputError: If model, batch or loss cannot be used as given.
        ModelError: If the model, the loss or the backward pass raises.
    """
    model = check_model(model)
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise InputError("draws", got=described(draws), expected="a whole number of at least 1")
    inputs = check_batch(batch, model, get_inputs=get_inputs)

    def measured(queued: bool) -> tuple[Gathering, tuple[ParameterStats, ...]]:
        with preserved(model, watch=False) as guard:
            one = _run(model, inputs, batch, loss, seed, backward, guard, queued=queued)
            with torch._C.DisableTorchFunction(), torch.no_grad():
                parameters = parameter_stats(model, one.parameter_grads, use_counts(e[6] for e in one.events))
        one.parameter_grads.clear()
        return one, parameters

    queued = True
    one, parameters = measured(queued)
    if one.rewritten:  # a tensor that waited to be read was overwritten meanwhile: read each at once
        queued = False
        one, parameters = measured(queued)
    outputs, grads = one.outputs.finish(), one.grads.finish()
    result = Measurement(
        model=type(model).__name__,
        nodes=tuple(_node(event, outputs, grads) for event in one.events),
        parameters=parameters,
        loss=one.loss,
        loss_kind=one.loss_kind,
        training=model.training,
        batch_size=inputs.batch_size,
        device=str(inputs.device),
        notes=(*inputs.notes, *one.notes),
        outputs=one.returned,
    )
    if draws > 1 or redraw is not None:

        def again() -> Pass:
            p = _run(model, inputs, batch, loss, seed, backward, queued=queued)
            made, grads = p.outputs.finish(), p.grads.finish()
            squares = {k: v.q for k, v in made.items()}, {k: v.q for k, v in grads.items()}
            return Pass(*squares, {k: v.cosine for k, v in made.items()})

        result = with_draws(result, model, again, draws, redraw, law, seed)
    return result


def _node(event: tuple[Any, ...], outputs: Mapping[str, TensorStats], grads: Mapping[str, TensorStats]) -> NodeStats:
    name, op, module, module_type, source, inputs, parameters = event
    return NodeStats(
        name,
        op,
        module,
        module_type,
        source,
        outputs[name],
        grads.get(name),
        inputs=inputs,
        parameters=parameters,
    )


def _run(
    model: nn.Module,
    inputs: Inputs,
    batch: Any,
    loss: Loss | None,
    seed: int,
    backward: bool,
    guard: WriteGuard | None = None,
    *,
    queued: bool = True,
) -> Gathering:
    """Forward, loss, backward. The caller restores what the model changes; `guard` sees every call that may write."""
    torch.manual_seed(seed)
    one = Gathering(inputs.batch_size, queued=queued)
    with torch.inference_mode(False), torch.set_grad_enabled(backward):
        args, kwargs, leaves = _own_inputs(inputs, backward)
        with _told(model, one, "forward pass"), recording(model, one.sink, guard=guard) as recorder:
            recorder.before_write = one.read_waiting
            with torch._C.DisableTorchFunction():
                recorder.start(args, kwargs)
            output = model(*args, **kwargs)
            one.read_waiting()
        tensors = [t for _, t in named_tensors(output) if t.is_floating_point() or t.is_complex()]
        origins = (recorder.origin(t) for _, t in named_tensors(output))
        one.returned = tuple(dict.fromkeys(o.name for o in origins if o is not None and o.name is not None))
        if not tensors and loss is None:
            one.notes.append(
                f"the model returned {described(output)} without a floating-point tensor: no backward pass"
            )
            return one
        with guard or nullcontext():
            with _told(model, one, "loss"):
                roots, cotangents, one.loss, one.loss_kind = _loss(output, tensors, batch, loss, seed)
            del output, tensors, args, kwargs
            if backward:
                _differentiate(model, one, roots, cotangents, leaves)
    return one


def _differentiate(
    model: nn.Module, one: Gathering, roots: list[Tensor], cotangents: list[Tensor | None], leaves: list[Tensor]
) -> None:
    pairs = [(r, c) for r, c in zip(roots, cotangents, strict=True) if r.requires_grad]
    if not pairs:
        one.notes.append("the output does not require a gradient: no backward pass")
        return
    if len(pairs) < len(roots):
        one.notes.append(f"{len(roots) - len(pairs)} of {len(roots)} outputs do not require a gradient")
    roots, cotangents = [r for r, _ in pairs], [c for _, c in pairs]
    parameters = [p for p in model.parameters() if p.requires_grad]
    targets = [*leaves, *parameters]
    if not parameters:
        one.notes.append("no parameter requires a gradient: gradients of activations only")
    with _told(model, one, "backward pass"):
        one.listening = True
        found = torch.autograd.grad(roots, targets, cotangents, allow_unused=True)
        one.read_waiting()
    grads = found[len(leaves) :]
    one.parameter_grads = {id(p): g for p, g in zip(parameters, grads, strict=True)}


def _own_inputs(inputs: Inputs, backward: bool) -> tuple[tuple[Any, ...], dict[str, Any], list[Tensor]]:
    """Copies of the inputs that the model may overwrite, and the leaves behind them that receive gradients.

    Leaves that require a gradient already stay what they are: a loss may hold them and differentiate the output there.
    """
    leaves: list[Tensor] = []

    def own(t: Tensor) -> Tensor:
        t = separate(t)
        if backward and (t.is_floating_point() or t.is_complex()) and not is_sparse(t):
            t.requires_grad_(True)
            leaves.append(t)
        return t.clone()

    args, kwargs = map_tensors((tuple(inputs.args), dict(inputs.kwargs)), own)
    return args, kwargs, leaves


def _loss(
    output: Any, tensors: list[Tensor], batch: Any, loss: Loss | None, seed: int
) -> tuple[list[Tensor], list[Tensor | None], float, str]:
    """What to differentiate: roots, their cotangents, the value, and how it is called."""
    if loss is None:
        generator = torch.Generator().manual_seed(seed)
        cotangents = [random_cotangent(t, generator) for t in tensors]
        with torch.no_grad():
            value = sum(_inner(t, c) for t, c in zip(tensors, cotangents, strict=True))
        return tensors, list(cotangents), value, "random cotangent"
    if not callable(loss):
        raise InputError("loss", got=described(loss), expected="a callable on the model's output, or None")
    value = loss(output, batch) if takes_two(loss) else loss(output)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise InputError("loss", got=f"{described(value)} from it", expected="a tensor with one element")
    name = getattr(loss, "__name__", type(loss).__name__)
    return [value], [None], float(value.detach()), name


def _inner(y: Tensor, v: Tensor) -> float:
    """Re Σ v̄·y, piece by piece, which makes no copy of their product."""
    pieces = zip(v.reshape(-1).split(_PIECE), y.detach().reshape(-1).split(_PIECE), strict=True)
    return sum(float(torch.vdot(a, b).real) for a, b in pieces)


_PIECE = 1 << 17  # entries: they stay in the cache


def random_cotangent(y: Tensor, generator: torch.Generator) -> Tensor:
    """A fixed random direction at `y`: normal entries, scaled to mean square exactly 1 (up to rounding)."""
    dtype = y.dtype if y.dtype in (torch.float64, torch.complex64, torch.complex128) else torch.float32
    v = torch.randn(y.shape, generator=generator, dtype=dtype)
    if v.numel():
        v *= math.sqrt(v.numel()) / float(torch.linalg.vector_norm(v))
    return v.to(device=y.device, dtype=y.dtype)


def takes_two(loss: Loss) -> bool:
    """Whether the callable needs (output, batch) rather than the output alone."""
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters) >= 2


@contextmanager
def _told(model: nn.Module, one: Gathering, what: str) -> Iterator[None]:
    """Turn what the user's code raises into a `ModelError` that says where it happened."""
    try:
        yield
    except FirstlightError:
        raise
    except Exception as error:
        where = _place(model, error)
        after = f", after {one.last}" if one.last and what == "forward pass" else ""
        raise ModelError(
            f"{what}{f' of module {where!r}' if where else ''}{after}",
            got=f"{type(error).__name__}: {_first_lines(error)}",
            expected=f"a {what} that runs",
            action=_advice(what, str(error)),
        ) from error


def _place(model: nn.Module, error: BaseException) -> str:
    """Path of the innermost submodule in the traceback; "" for the root or outside."""
    paths = {id(m): path for path, m in model.named_modules()}
    place, trace = "", error.__traceback__
    while trace is not None:
        place = paths.get(id(trace.tb_frame.f_locals.get("self")), place)
        trace = trace.tb_next
    return place


def _first_lines(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."


_TYPES = "and bias type"  # of torch's convolutions: "Input type (double) and bias type (float) should be the same"


def _advice(what: str, message: str) -> str:
    if "'indices'" in message and "Long" in message:
        return "Give integers below the number of tokens (on the command line: --input 8,128:int64:50257)."
    if "more than 1 value per channel" in message:
        return "Give a batch of two samples or more (batch statistics of one do not exist), or call model.eval()."
    if what == "loss" and "target dtype" in message:
        return "Convert the targets to the type that the loss expects, for example targets.long()."
    if "dtype" in message or "expected scalar type" in message or "same type" in message.lower() or _TYPES in message:
        return "Convert the batch to the model's element type, for example batch.float()."
    if "Checkpointing is not compatible" in message:
        return "Use torch.utils.checkpoint with use_reentrant=False, or switch checkpointing off for the measurement."
    if "out of bounds" in message or "out of range" in message:
        return "Check the labels and indices: they must lie below the number of classes or tokens."
    if what == "loss" and ("differentiated Tensor" in message or "does not require grad" in message):
        return "A loss that differentiates the output needs a batch that asks for it: batch.requires_grad_(True)."
    if "does not require grad" in message:
        return "A model that differentiates in its forward pass cannot be measured with backward=False."
    if "shape" in message or "size" in message:
        return "Check the batch's shape against what the module expects."
    return "Run the model alone on this batch to see the whole traceback." if what == "forward pass" else ""
