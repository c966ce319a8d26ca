"""predict: graph, laws and inputs of a module brought together; the mathematics is on the floors below."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from firstlight.capture.inputs import check_batch, check_model
from firstlight.capture.laws import TOKEN, assumed_laws, buffer_laws, live_laws
from firstlight.capture.sampled import Sampler
from firstlight.capture.tensors import dense, is_sparse, named_tensors
from firstlight.capture.trace import trace
from firstlight.errors import InputError
from firstlight.graph.ir import FloatArray, Graph, Law, ParameterRef, TensorSpec
from firstlight.graph.prediction import Prediction
from firstlight.graph.signal import Signal, replace
from firstlight.graph.softmaxes import joined
from firstlight.graph.uncollected import uncollected
from firstlight.propagate.adjoint import adjoint
from firstlight.propagate.fluctuation import summarise
from firstlight.propagate.forward import forward, require_rules
from firstlight.propagate.run import uninitialised
from firstlight.propagate.start import RANGES
from firstlight.rules.moves.structural import like_shape
from firstlight.rules.state import twins
from firstlight.rules.state.empirical import constant, from_data, uniform, unseen

_DTYPES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
    "fp64": "float64",
}


def dtype_called(dtype: Any) -> str:
    """The name of a compute type.

    Raises:
        InputError: A type whose range is not known.
    """
    name = str(dtype).removeprefix("torch.")
    name = _DTYPES.get(name, name)
    if name not in RANGES:
        raise InputError("dtype", got=repr(dtype), expected=" or ".join(RANGES))
    return name


def is_factory(model: Any) -> bool:
    """Whether it is called to build a module."""
    return callable(model) and not isinstance(model, nn.Module | type)


def built(model: Any) -> nn.Module:
    """The module itself, without the wrapper of ``torch.compile``, or what a factory without arguments builds."""
    if is_factory(model):
        given = inspect.signature(model).parameters.values()
        asked = [p.name for p in given if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if asked:
            raise InputError(
                "model",
                got=f"a function that needs {' and '.join(asked)}",
                expected="a torch.nn.Module, or a function without arguments that builds one",
                action="Pass lambda: build(...), or make a function of tensors the forward of a module.",
            )
        model = model()
    return check_model(model, materialised=False)


def numeric_defaults(factory: Any) -> dict[str, int | float]:
    """The factory's arguments whose default is a number above zero."""
    parameters = inspect.signature(factory).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if isinstance(p.default, int | float) and not isinstance(p.default, bool) and p.default > 0
    }


def arguments(inputs: Any, module: nn.Module, get_inputs: Callable[[Any], Any] | None) -> tuple[Any, Mapping[str, Any]]:
    """(args, kwargs) for one call; shapes pass as they are."""
    if get_inputs is None and (given := _with_shapes(inputs)) is not None:
        return given
    found = check_batch(inputs, module, get_inputs=get_inputs, values=False)
    return found.args, found.kwargs


def _with_shapes(inputs: Any) -> tuple[Any, Mapping[str, Any]] | None:
    """(args, kwargs) of inputs of which some are shapes; None where none is."""
    if isinstance(inputs, TensorSpec):
        return (inputs,), {}
    args, kwargs = (), inputs
    if isinstance(inputs, tuple):
        both = len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict)
        args, kwargs = inputs if both else (inputs, {})
    if not isinstance(kwargs, dict) or not any(isinstance(i, TensorSpec) for i in (*args, *kwargs.values())):
        return None
    return args, kwargs


@uncollected()
def predict(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any],
    *,
    laws: Mapping[str, Law] | None,
    scheme: str,
    on_missing: Literal["raise", "measure"] = "raise",
    dtype: Any = None,
    backward: bool = True,
    graph: Graph | None = None,
    strict: bool = False,
) -> Prediction:
    """Predict from the module's graph.

    Args:
        model: Any module, also on the meta device when `laws` are given.
        args: Positional arguments, real, meta or shapes.
        kwargs: Keyword arguments, likewise.
        laws: Declared laws by qualified name; None for the live ones.
        scheme: What to call them.
        on_missing: Refuse or measure operations without a rule.
        dtype: Compute type whose range is looked at; None for that of the parameters.
        backward: Whether gradients are predicted.
        graph: The graph, if it is already there.
        strict: Let errors inside rules escape (tests).
    """
    check_model(model, materialised=False)
    graph = joined(trace(model, args, kwargs) if graph is None else graph)
    if on_missing not in ("raise", "measure"):
        raise InputError("on_missing", got=repr(on_missing), expected="'raise' or 'measure'")
    if on_missing == "raise":
        require_rules(graph)
    notes: list[str] = []
    if laws is None:
        known = live_laws(model, graph)
        _require_finite(known)
    else:
        known = dict(laws)
        known.update(_undrawn(model, graph, known, notes))
    inputs, unknown = _inputs(graph, args, kwargs)
    if unknown:
        notes.append("Inputs of which only the shape is known are taken as independent standard normal entries.")
    notes.extend(_made_of_shapes(graph))
    sampler = Sampler(graph)
    run = forward(graph, inputs, known, sampler=sampler, strict=strict)
    if backward:
        adjoint(run, sampler=sampler)
    if dtype is None:
        first = next((p.spec.dtype for p in graph.parameters.values() if p.role == "parameter"), "float32")
        dtype = first if first in RANGES else "float32"
    return summarise(run, scheme, {n: law.source for n, law in known.items()}, dtype_called(dtype), notes)


def _require_finite(laws: Mapping[str, Law]) -> None:
    """Raise where live entries have no mean or variance."""
    for name, law in laws.items():
        if not (math.isfinite(law.mean) and math.isfinite(law.variance)):
            raise InputError(
                f"model, parameter {name!r}",
                got="entries that are NaN or infinite",
                expected="finite weights",
                action='Look with diagnose(model, batch), or pass scheme="he" to predict fresh weights.',
            )


def _undrawn(model: nn.Module, graph: Graph, known: Mapping[str, Law], notes: list[str]) -> dict[str, Law]:
    """Laws of the parameters that the scheme leaves alone: their live entries, if they have any."""
    out: dict[str, Law] = {}
    missing: list[str] = []
    for n, p in graph.parameters.items():
        if n in known:
            continue
        alias = next((a for a in p.aliases if a in known), None)
        if alias is None:
            missing.append(n)
        else:
            out[n] = known[alias]
    if not missing:
        return out
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(dict(model.named_buffers(remove_duplicate=False)))
    real = [n for n in missing if n in tensors and tensors[n].device.type != "meta"]
    if real:
        from firstlight.capture.laws import law_of

        out.update({n: law_of(tensors[n]) for n in real if tensors[n].is_floating_point() or tensors[n].is_complex()})
    out.update({n: law for n, law in buffer_laws(graph).items() if n in missing and n not in out})
    left = [n for n in missing if n not in out]
    out.update(_assumed(graph, left, notes))
    return out


def _assumed(graph: Graph, names: Sequence[str], notes: list[str]) -> dict[str, Law]:
    """Laws of parameters of which nothing is known, and what is said of them."""
    found = assumed_laws(graph, names)
    read = {r.name for node in graph.nodes for r in node.read if isinstance(r, ParameterRef)}
    alike: dict[str, list[str]] = {}
    for n in (n for n in names if n in read):
        law = found[n]
        taken = f"normal entries of standard deviation {TOKEN}" if law.variance > 0.0 else f"{law.mean:g}"
        alike.setdefault(taken, []).append(n)
    for taken, some in alike.items():
        kind = "buffer" if all(graph.parameters[n].role == "buffer" for n in some) else "parameter"
        count = f"{len(some)} {kind}{'s have' if len(some) > 1 else ' has'}"
        notes.append(f"{count} no law and no entries, taken as {taken}: {_listed(some)}")
    return found


def _made_of_shapes(graph: Graph) -> Iterator[str]:
    """What is said of tensors that the network makes of others of which only the shape is known."""
    known = uninitialised(graph) | {n.name for n in graph.nodes if n.op == "input"}
    made = [c.name for c in graph.constants.values() if c.value is None and c.name not in known]
    if made:
        count = f"{len(made)} tensor{'s are' if len(made) > 1 else ' is'} made of integers or buffers without entries"
        yield f"{count}, integers taken as all different, masks as 1: {_listed(made)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" …" if len(names) > 4 else "")


_LAID_OUT = frozenset({
    "view", "reshape", "unsqueeze", "squeeze", "transpose", "permute", "expand", "flatten", "unflatten", "getitem",
    "cat", "stack", "to", "contiguous", "clone", "t", "movedim", "narrow", "select", "chunk", "split", "unbind",
})  # fmt: skip


def _is_indicator(entries: FloatArray) -> bool:
    """Whether all entries are zeros and ones, and some of each."""
    return bool(((entries == 0.0) | (entries == 1.0)).all()) and 0.0 < float(entries.mean()) < 1.0


def _meets_weights(graph: Graph, name: str) -> bool:
    """Whether a tensor, laid out in whatever way, is put through weights, as signals are and masks are not."""
    same = {name}
    for node in graph.nodes:
        if any(r.node in same for r in node.refs):
            if any(isinstance(a, ParameterRef) for a in node.read):
                return True
            if node.op in _LAID_OUT:
                same.add(node.name)
    return False


def _inputs(graph: Graph, args: Any, kwargs: Mapping[str, Any]) -> tuple[dict[str, Signal], bool]:
    """The signal of each input node, from data where there are any."""
    positional = args if isinstance(args, tuple) and not all(isinstance(a, int) for a in args) else (args,)
    found: dict[str, Tensor] = {}
    for path, t in named_tensors((positional, dict(kwargs))):
        found.setdefault(path.partition(".")[2], t)
    out: dict[str, Signal] = {}
    shapes = Counter(t.shape for t in found.values() if t.is_floating_point() and not t.is_meta)
    unknown = False
    for node in graph.nodes:
        if node.op != "input":
            continue
        spec = node.outputs[0]
        t = found.get(str(node.options.get("path", "")))
        batch = graph.batch_dim
        integer = spec.dtype.startswith(("int", "bool")) or (spec.dtype == "uint8" and t is not None and t.is_meta)
        value = graph.constants.get(node.name)
        graphlike = t is not None and is_sparse(t)  # of whose entries the law is asked, not each
        if integer or (value is not None and value.value is not None and not graphlike):  # a known number is a mask
            known = None if value is None else value.value
            if known is None and t is not None and not t.is_meta:
                known = t.detach().cpu().numpy()
            out[node.name] = (
                constant(known, batch_axis=batch)
                if known is not None
                else uniform(spec.shape, 0.0, 1.0, batch_axis=batch, integer=True)
            )
            continue
        if t is None or t.is_meta:
            unknown = True
            out[node.name] = unseen(spec, batch)
            continue
        t = dense(t).detach()
        entries = t.to("cpu", torch.float64).numpy()
        seen = from_data(entries, batch)
        if shapes[t.shape] > 1:  # two views of one image are alike, and so is what one network makes of them
            seen = twins.given(seen, entries)
        seen = replace(seen, given=(seen.ident, entries.reshape(seen.atoms)))
        if len(found) > 1 and _is_indicator(entries) and not _meets_weights(graph, node.name):  # a mask, an adjacency
            seen = constant(entries, batch_axis=batch)
        out[node.name] = seen if seen.shape == spec.shape else like_shape(seen, spec.shape)
    return out, unknown
