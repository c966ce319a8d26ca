"""Write a graph by hand: for tests, and for networks that exist only on paper.

>>> b = Builder("Tiny")
>>> x = b.input(32, 64)
>>> w = b.parameter("layer.weight", 16, 64)
>>> h = b.node("linear", x, w, shape=(32, 16), module="layer")
>>> b.graph(b.node("relu", h)).nodes[-1].name
':relu'
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from firstlight.errors import InputError
from firstlight.graph.ir import (
    Arg,
    Constant,
    ConstantRef,
    Graph,
    Law,
    Node,
    Parameter,
    ParameterRef,
    Ref,
    TensorSpec,
)


class Builder:
    """Collects nodes in execution order; names follow the capture's rule.

    Args:
        model: Class name to give to the graph.
        training: Mode of the pass.
    """

    def __init__(self, model: str = "Network", *, training: bool = True) -> None:
        self._model = model
        self._training = training
        self._nodes: list[Node] = []
        self._parameters: dict[str, Parameter] = {}
        self._constants: dict[str, Constant] = {}
        self._specs: dict[Ref, TensorSpec] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def input(self, *shape: int, dtype: str = "float32", path: str = "") -> Ref:
        """An input tensor of the given shape."""
        name = self._name("", "input")
        options: dict[str, Arg] = {"path": path or str(self._counts["", "input"] - 1)}
        return self._append(Node(name, "input", (), MappingProxyType(options)), (TensorSpec(shape, dtype),))

    def parameter(
        self, name: str, *shape: int, law: Law | None = None, dtype: str = "float32", module_type: str = ""
    ) -> ParameterRef:
        """A trained tensor.

        Raises:
            InputError: A name that is taken.
        """
        if name in self._parameters:
            raise InputError(f"parameter {name!r}", got="a second one of this name", expected="unique names")
        self._parameters[name] = Parameter(name, TensorSpec(shape, dtype), law=law, module_type=module_type)
        return ParameterRef(name)

    def constant(self, value: npt.ArrayLike, name: str = "") -> ConstantRef:
        """A tensor of known entries."""
        array = np.asarray(value)
        name = name or self._name("", "constant")
        self._constants[name] = Constant(name, TensorSpec(array.shape, array.dtype.name), array)
        return ConstantRef(name)

    def node(
        self,
        op: str,
        *args: Arg,
        shape: tuple[int, ...] | None = None,
        dtype: str = "float32",
        module: str = "",
        module_type: str = "",
        outputs: tuple[TensorSpec, ...] = (),
        **options: Arg,
    ) -> Ref:
        """An operation.

        Args:
            op: Canonical operation.
            args: Positional arguments: references and plain values.
            shape: Shape of the only output; that of the first reference by default.
            dtype: Its element type.
            module: Path of the module.
            module_type: Its class name.
            outputs: All outputs, where there are several; replaces `shape` and `dtype`.
            options: Keyword arguments.

        Raises:
            InputError: If no shape is given and no argument has one.
        """
        if not outputs:
            found = shape if shape is not None else self._shape_of(args)
            if found is None:
                raise InputError(f"node {op!r}", got="no shape", expected="shape=... or an argument with one")
            outputs = (TensorSpec(found, dtype),)
        node = Node(
            self._name(module, op),
            op,
            args,
            MappingProxyType(options),
            module=module,
            module_type=module_type,
        )
        return self._append(node, outputs)

    def graph(self, *outputs: Ref) -> Graph:
        """The graph that ends in `outputs` (default: in the last node)."""
        return Graph(
            nodes=tuple(self._nodes),
            outputs=outputs or (Ref(self._nodes[-1].name),),
            parameters=MappingProxyType(dict(self._parameters)),
            constants=MappingProxyType(dict(self._constants)),
            model=self._model,
            training=self._training,
        )

    def _append(self, node: Node, outputs: tuple[TensorSpec, ...]) -> Ref:
        self._nodes.append(
            Node(
                node.name,
                node.op,
                node.args,
                node.options,
                outputs,
                node.module,
                node.module_type,
                node.source,
            )
        )
        for index, spec in enumerate(outputs):
            self._specs[Ref(node.name, index)] = spec
        return Ref(node.name)

    def _shape_of(self, args: tuple[Arg, ...]) -> tuple[int, ...] | None:
        for arg in args:
            if isinstance(arg, Ref):
                return self._specs[arg].shape
            if isinstance(arg, ParameterRef):
                return self._parameters[arg.name].spec.shape
            if isinstance(arg, ConstantRef):
                return self._constants[arg.name].spec.shape
        return None

    def _name(self, module: str, op: str) -> str:
        count = self._counts.get((module, op), 0)
        self._counts[(module, op)] = count + 1
        return f"{module}:{op}#{count}" if count else f"{module}:{op}"
