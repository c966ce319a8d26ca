"""Run a model on shapes alone: weights and activations on the meta device, constants for real.

Every call is looked at before it runs. If it reads a weight, a floating-point input or what came from them,
its tensors are replaced by stand-ins on the meta device, which have a shape and no entries; so nothing is
allocated and no weight is touched, be it real, on an accelerator or itself on the meta device. If it reads
only constants and integer inputs, it runs for real on the CPU, on copies of whatever belongs to the model or
the user; so masks, positions and counters have their values, and control flow that depends on them works.

Integers chosen by the data (the experts of a router, an argmax) have no value without entries. To go on, each
is given a representative one, spread evenly over the possible choices, and the graph says so in a note.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch

from firstlight.capture.known_shapes import argument_like
from firstlight.capture.nodes import VALUE_LIMIT, NodeRecorder
from firstlight.capture.packed import PACKED, PADDING
from firstlight.capture.record import is_signal
from firstlight.capture.scope import Scope
from firstlight.capture.tensors import is_sparse, map_tensors
from firstlight.capture.weightless import rebuilt
from firstlight.graph.operations import RANDOM

CPU = torch.device("cpu")
META = torch.device("meta")

# Filled with one number; above this size only the shape and the number are kept.
_SMALL = 2**11
_FILLED = frozenset({"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_tensor"})
_FACTORIES = frozenset({"zeros", "ones", "full"})
_EMPTY = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"})
# Operations whose integer results are choices among the positions of an axis.
_CHOICES = frozenset({"topk", "argmax", "argmin", "sort", "argsort", "max", "min", "kthvalue", "multinomial"})


class ShapeRecorder(NodeRecorder):
    """Records a forward pass without entries. See the module's docstring."""

    untouched = True

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        # id of a tensor -> (the tensor, kept alive; its stand-in on the meta device)
        self._stand_ins: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._owners: dict[int, torch.Tensor] = {}
        self._copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._fills: dict[int, tuple[weakref.ref[torch.Tensor], Any]] = {}
        # Tensors that hold entries, but no longer the right ones: the model wrote into their stand-in.
        self._outdated: dict[int, torch.Tensor] = {}
        self._representatives: dict[int, torch.Tensor] = {}
        self._run_real = False
        for buffer, value in rebuilt(scope.model):
            self._copies[id(buffer)] = (buffer, value)

    def input_for(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor to pass to the model in place of the user's: no entries, or a copy of integer ones."""
        if is_known_input(tensor):
            return tensor.detach().to(CPU, copy=True)
        return torch.empty_like(tensor, device=META, requires_grad=tensor.requires_grad)

    def start(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        """Tell the recorder the arguments, made by `input_for`; those that are not on the meta device are known."""
        self._run_real = True
        super().start(args, kwargs)

    def prepare(
        self, op: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], live: bool
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Write down the arguments and put stand-ins or copies in the place of the tensors."""
        super().prepare(op, func, args, kwargs, live)
        if op in _FILLED or op in _FACTORIES:
            self._run_real = self._fillable(op, func, args, kwargs)
            if self._run_real and op in _FILLED:
                return (
                    func,
                    (torch.empty((), dtype=args[0].dtype).expand(args[0].shape), *args[1:]),
                    _on(kwargs, CPU),
                )
        else:
            known = op not in RANDOM and op not in _EMPTY and self._all_known((args, kwargs))
            self._run_real = known and not self._too_large(func, args, kwargs)
        if self._run_real:
            args = map_tensors(_on(args, CPU), self._copy_of)
            kwargs = map_tensors(_on(kwargs, CPU), self._copy_of)
            return _unwatched(func), args, kwargs
        if op in _WITHOUT_META:
            func = _WITHOUT_META[op]
        if op in PACKED and len(args) > 1 and isinstance(args[1], torch.Tensor) and self.is_known(args[1]):
            sizes = args[1] if args[1].dim() == 1 and not args[1].is_floating_point() else None
            if sizes is not None:
                args = (self.stand_in(args[0]), self._copy_of(sizes), *map_tensors(args[2:], self.stand_in))
                return _unwatched(PACKED[op]), args, map_tensors(_on(kwargs, META), self.stand_in)
        if func in (torch.Tensor.cpu, torch.Tensor.cuda):
            return _itself, args[:1], {}
        args = map_tensors(_on(args, META), self.stand_in)
        kwargs = map_tensors(_on(kwargs, META), self.stand_in)
        kwargs.pop("generator", None)
        if (like := argument_like(op, func, args, kwargs)) is not None:
            return _copied, (like,), {}
        if op in ("getitem", "setitem"):
            args = (args[0], self._without_masks(args[1]), *args[2:])
        if "device" not in kwargs and _makes_tensor(op, func, args):
            kwargs["device"] = META
        return _unwatched(func), args, kwargs

    def finished(self, op: str, args: tuple[Any, ...], result: Any) -> Any:
        """Note constants filled with one number; give choices made by the data a representative value."""
        if self._run_real:
            return result
        if op in _FACTORIES | _FILLED and isinstance(result, torch.Tensor):
            number = 0 if "zeros" in op else 1 if "ones" in op else args[-1]
            if isinstance(number, bool | int | float):
                self._fills[id(result)] = (weakref.ref(result), number)
        elif op == "rand" and result.dim() <= 1 and result.numel() == 1:
            return self._representative(torch.full(result.shape, 0.5))
        elif op in _CHOICES:
            return self._choose(op, args, result)
        elif op in PADDING:
            self._representatives[id(result[1])] = result[1]  # integers that follow from lengths that are known
        return result

    def inspect(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer questions about the place of a tensor as if everything were on the CPU."""
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = func.__self__.__name__
            if name == "device":
                return CPU
            if name in ("is_meta", "is_cuda", "is_xpu", "is_mps"):
                return False
            if name == "is_cpu":
                return True
        elif name == "get_device":
            return -1
        return func(*args, **kwargs)

    def bind(self, tensor: torch.Tensor, name: str | None, index: int, live: bool, signal: bool) -> None:
        """Remember the origin of a tensor and of the one for which it stands in."""
        super().bind(tensor, name, index, live, signal)
        owner = self._owners.get(id(tensor), tensor)
        if owner is not tensor:
            super().bind(owner, name, index, live, signal)
        elif id(tensor) in self._stand_ins:
            super().bind(self._stand_ins[id(tensor)][1], name, index, live, signal)
        if owner.device.type != "meta" and not self._run_real and id(tensor) not in self._representatives:
            self._outdated[id(owner)] = owner

    def overwrite(self, tensor: torch.Tensor, name: str | None, live: bool, signal: bool) -> None:
        """Follow a change in place; a constant changed without its entries loses them."""
        if name is None and not self._run_real:
            owner = self.owner(tensor)
            self._outdated[id(owner)] = owner
        super().overwrite(tensor, name, live, signal)

    def owner(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor for which `tensor` stands in."""
        return self._owners.get(id(tensor), tensor)

    def value_of(self, tensor: torch.Tensor) -> Any:
        """The entries of a constant, also of one too large to be made."""
        filled = self._fills.get(id(tensor))
        if filled is not None and filled[0]() is tensor and tensor._version == 0:
            return torch.tensor(filled[1], dtype=tensor.dtype).expand(tensor.shape).numpy()
        return super().value_of(tensor)

    def is_known(self, tensor: torch.Tensor) -> bool:
        """Whether the entries of `tensor` are at hand and not to be set apart."""
        if id(tensor) in self._outdated or id(tensor) in self.parameters:
            return False
        if id(tensor) in self._copies:
            return True
        if tensor.device.type == "meta":
            return False
        return not tensor.requires_grad and (tensor.numel() <= VALUE_LIMIT or self.origin(tensor) is not None)

    def stand_in(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor of the same shape without entries; always the same one for the same tensor."""
        if tensor.device.type == "meta":
            return tensor
        kept = self._stand_ins.get(id(tensor))
        if kept is None:
            like = tensor
            if is_sparse(tensor):  # torch.sparse's functions take dense tensors as well
                like = torch.empty(tensor.shape, dtype=tensor.dtype, device=META)
            made = torch.empty_like(like, device=META, requires_grad=tensor.requires_grad)
            kept = self._stand_ins[id(tensor)] = (tensor, made)
            self._owners[id(made)] = tensor
        return kept[1]

    def _all_known(self, values: Any) -> bool:
        known = True

        def look(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal known
            known = known and self.is_known(tensor)
            return tensor

        map_tensors(values, look)
        return known

    def _copy_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` itself if this pass made it, else a copy that may be changed."""
        if self.origin(tensor) is not None:
            return tensor
        kept = self._copies.get(id(tensor))
        if kept is None:
            kept = self._copies[id(tensor)] = (tensor, tensor.detach().to(CPU, copy=True))
        return kept[1]

    def _fillable(self, op: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether to make a tensor filled with one number, or only its shape and a note of the number."""
        if op in _FACTORIES:
            return func(*_on(args, META), **{**kwargs, "device": META}).numel() <= VALUE_LIMIT
        made = func(self.stand_in(args[0]), *args[1:], **_on(kwargs, META))
        return made.numel() <= (VALUE_LIMIT if self.is_known(args[0]) else _SMALL)

    def _too_large(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call on constants makes more entries than are worth having."""
        entries = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal entries
            entries += tensor.numel()
            return tensor

        map_tensors((args, kwargs), count)
        if entries < _SMALL:
            return False
        made: list[int] = []
        try:
            result = func(*map_tensors(_on(args, META), _shape_only), **map_tensors(_on(kwargs, META), _shape_only))
            map_tensors(result, lambda t: made.append(t.numel()))
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            return False  # its result's shape depends on the entries, or it fails: let the real call show that
        return max(made, default=0) > VALUE_LIMIT

    def _without_masks(self, index: Any) -> Any:
        """An index in which known boolean masks have become the positions at which they are true."""
        items = index if isinstance(index, tuple) else (index,)
        changed: list[Any] = []
        for item in items:
            owner = self.owner(item) if isinstance(item, torch.Tensor) else item
            if isinstance(owner, torch.Tensor) and owner.dtype == torch.bool and owner.device.type != "meta":
                changed.extend(self.stand_in(i) for i in self._copy_of(owner).nonzero(as_tuple=True))
            else:
                changed.append(item)
        return tuple(changed)

    def _choose(self, op: str, args: tuple[Any, ...], result: Any) -> Any:
        def spread(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.dtype != torch.int64 or tensor.numel() > VALUE_LIMIT:
                return tensor
            return self._representative((torch.arange(tensor.numel()) % choices).reshape(tensor.shape))

        read = args[0]
        if not isinstance(read, torch.Tensor) or not read.dim():
            return result
        axis = next((a for a in args[1:] if isinstance(a, int) and op not in ("topk", "multinomial")), -1)
        choices = max(1, read.shape[axis] if -read.dim() <= axis < read.dim() else read.shape[-1])
        return spread(result) if isinstance(result, torch.Tensor) else type(result)([spread(t) for t in result])

    def _representative(self, value: torch.Tensor) -> torch.Tensor:
        """A value in place of one that depends on entries or on chance; it counts as known from here on."""
        self._representatives[id(value)] = value
        self.notes[
            "Some choices depend on the data or on chance (topk, argmax, a random number): to follow the "
            "shapes, integers were spread evenly over the choices and random numbers set to one half."
        ] = None
        return value


def is_known_input(tensor: torch.Tensor) -> bool:
    """Whether an input's entries are used as they are: integers, booleans and masks that hold values."""
    return tensor.device.type != "meta" and not is_signal(tensor)


def _on(values: Any, device: torch.device) -> Any:
    """The arguments with every device in them replaced."""
    if isinstance(values, dict):
        return {k: device if k == "device" and v is not None else _on(v, device) for k, v in values.items()}
    if isinstance(values, torch.device):
        return device
    if isinstance(values, tuple) and not hasattr(values, "_fields"):
        return tuple(_on(value, device) for value in values)
    if isinstance(values, str) and values.partition(":")[0] in ("cuda", "cpu", "mps", "xpu", "meta"):
        return device
    return values


def _makes_tensor(op: str, func: Any, args: tuple[Any, ...]) -> bool:
    """Whether the call makes a tensor out of sizes alone, so that it has to be told where."""
    if any(isinstance(a, torch.Tensor) for a in args) or isinstance(func, type(torch.Tensor.add)):
        return False
    return op in _EMPTY | _FACTORIES or op in ("rand", "randn", "randint", "randperm", "normal")


def _shape_only(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, device=META)


def _grouped_mm(a: torch.Tensor, b: torch.Tensor, offs: Any = None, **_options: Any) -> torch.Tensor:
    """Shape of ``torch._grouped_mm``, whose own shape function refuses what the CPU computes (float32)."""
    if a.dim() == 2 and b.dim() == 2:
        return a.new_empty(len(offs), a.shape[0], b.shape[1])
    lead = b.shape[:-2] if a.dim() == b.dim() == 3 else ()
    return a.new_empty(*lead, a.shape[-2], b.shape[-1])


_WITHOUT_META = {"grouped_mm": _grouped_mm}


def _unwatched(func: Any) -> Any:
    """`func`, inside which no torch-function mode looks: it works on stand-ins and copies alone."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return func(*args, **kwargs)

    return call


_copied = _unwatched(torch.clone)


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
