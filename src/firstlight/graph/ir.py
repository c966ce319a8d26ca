"""The graph of one network: its operations in execution order, without torch and without weights.

A `Graph` is what `capture.trace` makes of a module and what the rules interpret. Node names are those under
which `measure` reports the same operations, so that predicted and measured join by name.

Naming: ``"{module path}:{operation}"``, for example ``"layers.3:linear"``; the second, third, ... use of the same
operation in the same module is ``"layers.3:relu#1"``, ``"layers.3:relu#2"``. Operations of the root module have
an empty path: ``":relu"``. A module's repeated call counts on: its operations simply get the next numbers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape and element type of a tensor.

    Attributes:
        shape: Sizes, batch first where there is a batch.
        dtype: Name without the library's prefix: "float32", "bfloat16", "int64", "bool".
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Ref:
    """Output `index` of the node called `node` (index > 0 only for operations with several outputs)."""

    node: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class ParameterRef:
    """A parameter or buffer of the module, by its qualified name: a key of `Graph.parameters`."""

    name: str


@dataclass(frozen=True, slots=True)
class ConstantRef:
    """A tensor made inside the forward pass that depends on no input: a key of `Graph.constants`."""

    name: str


Arg = Ref | ParameterRef | ConstantRef | None | bool | int | float | complex | str | tuple["Arg", ...]


@dataclass(frozen=True, slots=True)
class Law:
    """The law from which a parameter's entries are drawn, or the empirical law of its live entries.

    Attributes:
        mean: Mean entry.
        variance: Variance of the entries (around `mean`).
        kurtosis: E w⁴ / (E w²)² of the centred entries: normal 3, uniform 1.8, Rademacher 1.
        structure: "iid", "orthogonal" (Haar, rows or columns orthonormal up to scale), "centred" (rows sum to
            zero over the input channels), "constant", "diagonal" ...
        source: Where the law comes from: "live", or a scheme's name.
        row_q: Mean square of each output unit's incoming weights, where they differ; None for an iid law.
        row: The entries of one row where all rows are alike (decay rates, position tables), or of the whole where that
            is a short list of numbers; None otherwise.
    """

    mean: float
    variance: float
    kurtosis: float = 3.0
    structure: str = "iid"
    source: str = "live"
    row_q: FloatArray | None = None
    row: FloatArray | None = None

    def chance(self, entries: int) -> bool:
        """Whether the mean of that many live entries is no evidence of one: within four of its standard errors."""
        if self.structure == "constant" or self.source != "live":
            return False
        return abs(self.mean) < 4.0 * (self.variance / max(entries, 1)) ** 0.5


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter or buffer of the module.

    Attributes:
        name: Qualified name, as in ``named_parameters()``; the first one of a tied group.
        spec: Shape and element type.
        role: "parameter" or "buffer".
        requires_grad: Whether it is trained.
        aliases: Further qualified names of the same tensor (tied weights).
        module_type: Class name of the module that owns it, for example "Linear".
        law: Law of the entries; None while neither live tensors nor a scheme have been asked.
    """

    name: str
    spec: TensorSpec
    role: str = "parameter"
    requires_grad: bool = True
    aliases: tuple[str, ...] = ()
    module_type: str = ""
    law: Law | None = None


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that depends on no input: a mask, a position index, a rotary table.

    Attributes:
        name: Key in `Graph.constants`.
        spec: Shape and element type.
        value: The entries, where they could be computed without the weights; None where not.
    """

    name: str
    spec: TensorSpec
    value: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: Unique, see the module's docstring.
        op: Canonical name of the operation: "linear", "conv2d", "relu", "add", "layer_norm", "input", ...; in-place
            and method forms carry the name of the plain function ("add_", "__iadd__", "Tensor.add" are "add").
        args: Positional arguments after normalisation to the operation's signature.
        options: Keyword arguments.
        outputs: One spec per output tensor.
        module: Qualified path of the innermost module that ran it; "" for the root.
        module_type: Class name of that module.
        source: "file.py:123", the innermost line outside torch; "" where unknown.
    """

    name: str
    op: str
    args: tuple[Arg, ...] = ()
    options: Mapping[str, Arg] = field(default_factory=lambda: MappingProxyType({}))
    outputs: tuple[TensorSpec, ...] = ()
    module: str = ""
    module_type: str = ""
    source: str = ""

    @functools.cached_property
    def read(self) -> tuple[Ref | ParameterRef, ...]:
        """All node outputs and parameters that this node reads, in argument order; kept, since many ask."""
        found: list[Ref | ParameterRef] = []
        _gather(self.args, found)
        if self.options:
            _gather(self.options.values(), found)
        return tuple(found)

    @functools.cached_property
    def refs(self) -> tuple[Ref, ...]:
        """All node outputs that this node reads, in argument order."""
        return tuple([r for r in self.read if isinstance(r, Ref)])


def _gather(args: Iterable[Arg], found: list[Ref | ParameterRef]) -> None:
    for arg in args:
        if isinstance(arg, tuple):
            _gather(arg, found)
        elif isinstance(arg, Ref | ParameterRef):
            found.append(arg)


@dataclass(frozen=True)
class Graph:
    """The operations of one forward pass, in execution order.

    Attributes:
        nodes: Inputs (op "input") first, then operations.
        outputs: The tensors that the model returned, in the order in which they appear in its output.
        parameters: By qualified name; tied tensors appear once.
        constants: By name.
        model: Class name of the root module.
        training: Whether the pass ran in training mode.
        batch_dim: Position of the batch axis in the inputs; None where there is none.
        notes: What the capture had to do or assume, in plain words.
        calls: How to run operations again that no rule describes, by node; for the floor that captured them, and lost
            in JSON.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[Ref, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=lambda: MappingProxyType({}))
    constants: Mapping[str, Constant] = field(default_factory=lambda: MappingProxyType({}))
    model: str = ""
    training: bool = True
    batch_dim: int | None = 0
    notes: tuple[str, ...] = ()
    calls: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)

    @functools.cached_property
    def named(self) -> Mapping[str, Node]:
        """The nodes by name."""
        return {n.name: n for n in self.nodes}

    def __getitem__(self, name: str) -> Node:
        """Look up a node by name."""
        return self.named[name]
