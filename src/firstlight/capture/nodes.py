"""From events to nodes: a recorder that writes the graph down while the model runs.

Dataflow is followed by the identity of tensors. A change in place makes a new version: whoever reads the
tensor later reads the changing node. If the changed tensor is a view, its base becomes a node "view_write"
(base, new part), and each other living view of the same memory a node "reread" of that base; so is a tensor
that turns up without having been seen but shares memory with one that was. A tensor of unknown origin that
carries gradient becomes a node "opaque" and a note. These three and "identity" (a weight that is itself an
output) are the only nodes without a recorded event.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from firstlight.capture.arguments import dtype_name, plain_arguments
from firstlight.capture.record import Event, Recorder, is_signal
from firstlight.capture.replay import Replay
from firstlight.capture.scope import Scope
from firstlight.capture.tensors import SPARSE_LIMIT, is_mask, is_sparse, named_tensors
from firstlight.graph.ir import Arg, Constant, ConstantRef, Node, Parameter, ParameterRef, Ref, TensorSpec

# Entries up to which the values of a constant are computed and kept.
VALUE_LIMIT = 2**22
_SOME = 512  # entries by which constants are told apart before they are compared
# Operations that read a buffer entry by entry: there it is a mask or a table of positions, whose values count. A buffer
# that is multiplied with as a matrix (random features) or holds running statistics is known by its law.
_TABLES = frozenset(
    {"add", "sub", "mul", "div", "where", "masked_fill", "maximum", "minimum", "scaled_dot_product_attention"}
)


class NodeRecorder(Recorder):
    """Builds `nodes`, `constants` and `notes` from the operations of one forward pass.

    Args:
        scope: The model's modules.
    """

    prepares = True
    # Whether the tensors keep their entries when the model writes into them (it writes into stand-ins).
    untouched = False

    def __init__(self, scope: Scope) -> None:
        super().__init__(self._add, scope)
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}
        self.notes: dict[str, None] = {}
        self.weights = parameters_of(scope.model)
        first = {alias: name for name, p in self.weights.items() for alias in p.aliases}
        self.parameters = {key: first.get(name, name) for key, name in self.parameters.items()}
        self._inputs: set[str] = set()
        for path, module in scope.model.named_modules():
            if isinstance(module, torch.jit.ScriptModule) and not _inside_script(scope.model, path):
                which = f"The module {path!r}" if path else "The model itself"
                self.notes[f"{which} is scripted: what runs inside it cannot be seen."] = None
        buffers = scope.model.named_buffers()
        self._buffers = {id(b): name for name, b in buffers if b.is_floating_point() and not is_mask(b)}
        self._named_constants: dict[int, tuple[weakref.ref[torch.Tensor], int, str]] = {}
        self._contents: dict[Any, list[tuple[str, NDArray[Any]]]] = {}
        self._arguments: tuple[tuple[Arg, ...], dict[str, Arg]] = ((), {})
        self.calls: dict[str, Replay] = {}
        self._call: Replay | None = None
        self._as_table = False

    def prepare(
        self, op: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], live: bool
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Write down the arguments before the call may change them."""
        if live:
            self._as_table = op in _TABLES
            self._arguments = plain_arguments(op, func, args, kwargs, self.reference)
            if op == "as_strided":  # places in memory mean something beside the strides that it had before
                held: Arg = tuple(args[0].stride())
                self._arguments[1].update({"held": held, "start": args[0].storage_offset()})
            self._call = Replay.of(func, args, kwargs, self.reference)
        return func, args, kwargs

    def enclose(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[torch.Tensor]
    ) -> None:
        """Write down what a custom function has read and what its forward pass made."""
        self._call = Replay.of(function.apply, args, kwargs, self.reference, function)
        given = [t for _, t in named_tensors((args, kwargs))]
        made = tuple(self._made_inside(t, given) for t in outputs)
        self._arguments = ((made, self._call.sources), {"function": function.__qualname__})

    def _made_inside(self, tensor: torch.Tensor, given: list[torch.Tensor]) -> Arg:
        """The result of a custom function's forward pass: an operation's inside, an argument, or None for neither."""
        if self.origin(tensor) is not None:
            return self.reference(tensor)
        for other in given:
            same = other.shape == tensor.shape and other.storage_offset() == tensor.storage_offset()
            if same and other.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
                return self.reference(other)
        return None

    def reference(self, tensor: torch.Tensor) -> Arg:
        """The name in the graph of a tensor that an operation reads."""
        origin = self.origin(tensor)
        if origin is not None and origin.name is not None and (origin.live or origin.name in self._inputs):
            return Ref(origin.name, origin.index)
        if id(tensor) in self.parameters:
            return ParameterRef(self.parameters[id(tensor)])
        if origin is None and id(tensor) in self._buffers:
            table = self._as_table and tensor.numel() <= VALUE_LIMIT and tensor.device.type != "meta"
            return self._constant(tensor) if table else ParameterRef(self._buffers[id(tensor)])
        if origin is None and tensor.requires_grad:
            return self._unseen(tensor)
        return self._constant(tensor)

    def value_of(self, tensor: torch.Tensor) -> Any:
        """The entries of a constant as an array; None where they are unknown, or too many and not all alike."""
        if tensor.device.type == "meta":
            return None
        if is_sparse(tensor):
            return tensor.detach().cpu().to_dense().numpy() if tensor.numel() <= SPARSE_LIMIT else None
        value, shape = tensor.detach().cpu(), tensor.shape
        many = tensor.numel() > VALUE_LIMIT
        if many:
            one = value[(0,) * value.dim()]
            if not bool((value == one).all()):
                return None
            value = one
        if value.dtype == torch.bfloat16:
            value = value.float()
        return np.broadcast_to(value.numpy(), tuple(shape)) if many else value.numpy().copy()

    def output(self, tensor: torch.Tensor) -> Ref | None:
        """The node behind a tensor that the model returned; None for a constant."""
        found = self.reference(tensor)
        if isinstance(found, ParameterRef):
            return self._synthetic("identity", (found,), tensor, False)
        return found if isinstance(found, Ref) else None

    def _add(self, event: Event) -> None:
        outputs = tuple(spec_of(t) for t in event.outputs)
        if event.op == "input":
            options: dict[str, Arg] = {"path": event.kwargs["path"]}
            self._inputs.add(event.name)
            self.nodes.append(Node(event.name, "input", (), options, outputs, "", event.module_type))
            value = None if is_signal(event.outputs[0]) else self.value_of(event.outputs[0])
            if value is not None:
                self.constants[event.name] = Constant(event.name, outputs[0], value)
            return
        args, options = self._arguments
        if self._call is not None:
            self.calls[event.name], self._call = self._call, None
        if event.op == "to":
            options = {"dtype": outputs[0].dtype}
        module, kind = event.module, event.module_type
        self.nodes.append(Node(event.name, event.op, args, options, outputs, module, kind, event.source))

    def _constant(self, tensor: torch.Tensor, before_write: bool = True) -> ConstantRef:
        known = self._named_constants.get(id(tensor))
        version = 0 if tensor.is_inference() else tensor._version
        if known is not None and known[0]() is tensor and known[1] == version:
            return ConstantRef(known[2])
        name = self.next_name(self.scope.path, "constant")
        value = self.value_of(tensor) if before_write or self.untouched else None
        if value is not None:
            name = self._first_of_content(value, name)
        self._named_constants[id(tensor)] = (weakref.ref(tensor), version, name)
        if name not in self.constants:
            self.constants[name] = Constant(name, spec_of(tensor), value)
        return ConstantRef(name)

    def _first_of_content(self, value: NDArray[Any], name: str) -> str:
        """The constant that holds the same entries, bit by bit; `name` where none does."""
        bits = _bits(value)
        dense = bits.flags.c_contiguous  # else one number, spread over a shape
        some = bits.reshape(-1)[:: max(1, bits.size // _SOME)] if dense else bits[(0,) * bits.ndim]
        alike = self._contents.setdefault((value.dtype.str, value.shape, some.tobytes()), [])
        for other, known in alike:  # a table is compared in a tenth of the time in which it is hashed
            if np.array_equal(bits, known):
                return other
        alike.append((name, bits))
        return name

    def _unseen(self, tensor: torch.Tensor) -> Ref:
        """A tensor with gradient that no recorded operation returned."""
        memory = tensor.untyped_storage()._cdata
        for origin in list(self._origins.values()):
            other = origin.ref()
            if other is None or origin.name is None or not origin.live:
                continue
            if other.layout == torch.strided and other.untyped_storage()._cdata == memory:
                if other.shape == tensor.shape and other.storage_offset() == tensor.storage_offset():
                    self.bind(tensor, origin.name, origin.index, True, origin.signal)
                    return Ref(origin.name, origin.index)
                return self._synthetic("reread", (Ref(origin.name, origin.index),), tensor, origin.signal, other)
        where = self.scope.path or "the model itself"
        self.notes[
            f"A tensor of shape {tuple(tensor.shape)} read in {where} came from code that cannot be seen "
            "(a scripted module, an operator written in C++, or a parameter that is not registered)."
        ] = None
        return self._synthetic("opaque", (), tensor, True)

    def _synthetic(
        self, op: str, args: tuple[Arg, ...], tensor: torch.Tensor, signal: bool, base: torch.Tensor | None = None,
        view: torch.Tensor | None = None,
    ) -> Ref:  # fmt: skip
        """Add a node for what happened to `tensor` without a call of its own, and where it lies in its base."""
        name = self.next_name(self.scope.path, op)
        path, kind = self.scope.path, self.scope.module_type
        index = None if base is None else index_of(base, tensor if view is None else view)
        options: dict[str, Arg] = {} if index is None else {"index": index}
        self.nodes.append(Node(name, op, args, options, (spec_of(tensor),), path, kind))
        self.bind(tensor, name, 0, True, signal)
        return Ref(name)

    def overwrite(self, tensor: torch.Tensor, name: str | None, live: bool, signal: bool) -> None:
        """Follow a change in place to all tensors that share the memory."""
        if name is None:
            return
        base = self.owner(tensor._base) if tensor._is_view() and tensor._base is not None else tensor
        index = next((o.index for o in (self.origin(tensor),) if o is not None and o.name == name), 0)
        part = Ref(name, index)
        whole = part
        if base is not tensor:
            if id(base) in self.parameters:
                self.notes[f"The forward pass writes into the parameter {self.parameters[id(base)]}."] = None
                return
            old = self.reference(base)
            if isinstance(old, Ref) and old.node == name:
                return  # the base was written by the same event, and its views read it again
            if isinstance(old, ConstantRef):
                old = self._constant(base, before_write=False)
            whole = self._synthetic("view_write", (old, part), base, signal, base, tensor)
        self.bind(tensor, part.node, part.index, True, signal)
        written = tensor if base is tensor else tensor._base
        for owner in {id(written), id(self.owner(base))}:
            for ref in tuple(self._views.get(owner, ())):
                view = ref()
                if view is not None and view is not tensor and view is not base:
                    self._synthetic("reread", (whole,), view, signal, base)


def _inside_script(model: nn.Module, path: str) -> bool:
    """Whether the module at `path` belongs to a scripted one, which answers no questions about its inside."""
    if not path:
        return False
    if isinstance(model, torch.jit.ScriptModule):
        return True
    return isinstance(model.get_submodule(path.rpartition(".")[0]), torch.jit.ScriptModule)


def index_of(base: torch.Tensor, view: torch.Tensor) -> tuple[Arg, ...] | None:
    """The slices and single indices of the base that a view holds, from the strides of both; None where it is other.

    Every axis of the view has to run along one axis of the base: no transposed, merged or split axes.
    """
    if base.layout != torch.strided or view.layout != torch.strided or not base.numel() or not view.numel():
        return None
    if not base.is_contiguous() or base.dtype != view.dtype:
        return None
    left = int(view.storage_offset()) - int(base.storage_offset())
    if left < 0:
        return None
    axis = 0
    out: list[Arg] = []
    for n, stride in zip(base.shape, base.stride(), strict=True):
        start, left = divmod(left, max(stride, 1))
        missing = base.dim() - len(out) - (view.dim() - axis)  # axes of the base that are single indices from here on
        size, step = (view.shape[axis], view.stride(axis)) if axis < view.dim() else (0, 0)
        along = size > 0 and (size == 1 or (step % stride == 0 and start + (size - 1) * (step // stride) < n))
        if along and not (missing > 0 and size == 1 and n > 1):
            by = step // stride if size > 1 else 1
            out.append(("slice", start, start + (size - 1) * by + 1, max(by, 1)))
            axis += 1
        elif missing > 0 and start < n:
            out.append(start)
        else:
            return None
    return tuple(out) if left == 0 and axis == view.dim() else None


def spec_of(tensor: torch.Tensor) -> TensorSpec:
    """Shape and type of a tensor."""
    return TensorSpec(tuple(int(n) for n in tensor.shape), dtype_name(tensor.dtype))


def parameters_of(model: nn.Module) -> dict[str, Parameter]:
    """Every registered parameter and floating-point buffer, tied ones once under their first name."""
    found: dict[str, Parameter] = {}
    first: dict[Any, str] = {}
    owners = dict(model.named_modules(remove_duplicate=False))
    named = [("parameter", n, t) for n, t in model.named_parameters(remove_duplicate=False)]
    named += [("buffer", n, t) for n, t in model.named_buffers(remove_duplicate=False) if t.is_floating_point()]
    for role, name, tensor in named:
        key = _memory(tensor)
        if key in first:
            known = found[first[key]]
            found[known.name] = Parameter(
                known.name,
                known.spec,
                known.role,
                known.requires_grad,
                (*known.aliases, name),
                known.module_type,
            )
            continue
        first[key] = name
        kind = type(owners[name.rpartition(".")[0]]).__name__
        found[name] = Parameter(name, spec_of(tensor), role, tensor.requires_grad, (), kind)
    return found


def _memory(tensor: torch.Tensor) -> Any:
    """Equal for two tensors that are the same numbers in memory."""
    if tensor.device.type == "meta" or tensor.layout != torch.strided or tensor.numel() == 0:
        return id(tensor)
    return (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))


def _bits(value: NDArray[Any]) -> NDArray[Any]:
    """Entries as integers, so that NaN is equal to itself; complex numbers as they are."""
    return value.view(f"u{value.itemsize}") if value.itemsize <= 8 else value
