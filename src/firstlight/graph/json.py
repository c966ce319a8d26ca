"""Graphs as JSON text and back, without loss.

Non-finite and complex numbers, references, tuples and arrays are objects with one key that begins with "$"; so
the text is strict JSON. Arrays are base64 of their bytes. `SCHEMA` is raised with every change that an older
reader would misread; a text of another schema is refused.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from firstlight.errors import DataError
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

SCHEMA = 1
_KIND = "firstlight.graph"


def dumps(graph: Graph, *, indent: int | None = None) -> str:
    """Return `graph` as JSON text.

    Args:
        graph: Any graph.
        indent: Spaces per level; None for one line.
    """
    content: dict[str, Any] = {
        "kind": _KIND,
        "schema": SCHEMA,
        "model": graph.model,
        "training": graph.training,
        "batch_dim": graph.batch_dim,
        "notes": list(graph.notes),
        "nodes": [_node(node) for node in graph.nodes],
        "outputs": [[ref.node, ref.index] for ref in graph.outputs],
        "parameters": [_parameter(p) for p in graph.parameters.values()],
        "constants": [_constant(c) for c in graph.constants.values()],
    }
    return json.dumps(content, indent=indent, allow_nan=False)


def loads(text: str) -> Graph:
    """Return the graph that `dumps` wrote.

    Raises:
        DataError: If the text is no JSON, no graph, damaged, or of another schema.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError("graph", got=f"text that is no JSON ({error})", expected="a graph as JSON") from error
    if not isinstance(content, dict) or cast("dict[str, Any]", content).get("kind") != _KIND:
        raise DataError("graph", got="JSON of something else", expected=f'an object with "kind": "{_KIND}"')
    data = cast("dict[str, Any]", content)
    if data.get("schema") != SCHEMA:
        raise DataError(
            "graph",
            got=f"schema {data.get('schema')!r}",
            expected=f"schema {SCHEMA}",
            action="Write the graph again with this version of firstlight.",
        )
    try:
        return _graph(data)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError("graph", got=f"a damaged graph ({reason})", expected="what dumps wrote") from error


def _graph(data: Mapping[str, Any]) -> Graph:
    parameters = [_read_parameter(p) for p in data["parameters"]]
    constants = [_read_constant(c) for c in data["constants"]]
    return Graph(
        nodes=tuple(_read_node(node) for node in data["nodes"]),
        outputs=tuple(Ref(str(name), int(index)) for name, index in data["outputs"]),
        parameters=MappingProxyType({p.name: p for p in parameters}),
        constants=MappingProxyType({c.name: c for c in constants}),
        model=str(data["model"]),
        training=bool(data["training"]),
        batch_dim=data["batch_dim"],
        notes=tuple(str(note) for note in data["notes"]),
    )


def _node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": node.op,
        "args": [_arg(a) for a in node.args],
        "options": {key: _arg(value) for key, value in node.options.items()},
        "outputs": [_spec(spec) for spec in node.outputs],
        "module": node.module,
        "module_type": node.module_type,
        "source": node.source,
    }


def _read_node(data: Mapping[str, Any]) -> Node:
    return Node(
        name=str(data["name"]),
        op=str(data["op"]),
        args=tuple(_read_arg(a) for a in data["args"]),
        options=MappingProxyType({str(k): _read_arg(v) for k, v in data["options"].items()}),
        outputs=tuple(_read_spec(s) for s in data["outputs"]),
        module=str(data["module"]),
        module_type=str(data["module_type"]),
        source=str(data["source"]),
    )


def _arg(arg: Arg) -> Any:
    if isinstance(arg, Ref):
        return {"$ref": [arg.node, arg.index]}
    if isinstance(arg, ParameterRef):
        return {"$parameter": arg.name}
    if isinstance(arg, ConstantRef):
        return {"$constant": arg.name}
    if isinstance(arg, tuple):
        return {"$tuple": [_arg(item) for item in arg]}
    if isinstance(arg, complex):
        return {"$complex": [_number(arg.real), _number(arg.imag)]}
    return _number(arg) if isinstance(arg, float) else arg


def _read_arg(data: Any) -> Arg:
    if not isinstance(data, dict):
        return data
    ((key, value),) = cast("dict[str, Any]", data).items()
    match key:
        case "$ref":
            return Ref(str(value[0]), int(value[1]))
        case "$parameter":
            return ParameterRef(str(value))
        case "$constant":
            return ConstantRef(str(value))
        case "$tuple":
            return tuple(_read_arg(item) for item in value)
        case "$complex":
            return complex(_read_number(value[0]), _read_number(value[1]))
        case "$float":
            return float(value)
        case _:
            raise ValueError(f"an argument of unknown kind {key!r}")


def _number(value: float) -> Any:
    return value if math.isfinite(value) else {"$float": repr(float(value))}


def _read_number(data: Any) -> float:
    return float(cast("dict[str, str]", data)["$float"] if isinstance(data, dict) else data)


def _spec(spec: TensorSpec) -> list[Any]:
    return [list(spec.shape), spec.dtype]


def _read_spec(data: Any) -> TensorSpec:
    return TensorSpec(tuple(int(n) for n in data[0]), str(data[1]))


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "spec": _spec(parameter.spec),
        "role": parameter.role,
        "requires_grad": parameter.requires_grad,
        "aliases": list(parameter.aliases),
        "module_type": parameter.module_type,
        "law": None if parameter.law is None else _law(parameter.law),
    }


def _read_parameter(data: Mapping[str, Any]) -> Parameter:
    return Parameter(
        name=str(data["name"]),
        spec=_read_spec(data["spec"]),
        role=str(data["role"]),
        requires_grad=bool(data["requires_grad"]),
        aliases=tuple(str(alias) for alias in data["aliases"]),
        module_type=str(data["module_type"]),
        law=None if data["law"] is None else _read_law(data["law"]),
    )


def _law(law: Law) -> dict[str, Any]:
    return {
        "mean": _number(law.mean),
        "variance": _number(law.variance),
        "kurtosis": _number(law.kurtosis),
        "structure": law.structure,
        "source": law.source,
        "row_q": None if law.row_q is None else _array(law.row_q),
        "row": None if law.row is None else _array(law.row),
    }


def _read_law(data: Mapping[str, Any]) -> Law:
    return Law(
        mean=_read_number(data["mean"]),
        variance=_read_number(data["variance"]),
        kurtosis=_read_number(data["kurtosis"]),
        structure=str(data["structure"]),
        source=str(data["source"]),
        row_q=None if data["row_q"] is None else _read_array(data["row_q"]),
        row=None if data.get("row") is None else _read_array(data["row"]),
    )


def _constant(constant: Constant) -> dict[str, Any]:
    value = None if constant.value is None else _array(constant.value)
    return {"name": constant.name, "spec": _spec(constant.spec), "value": value}


def _read_constant(data: Mapping[str, Any]) -> Constant:
    value = None if data["value"] is None else _read_array(data["value"])
    return Constant(str(data["name"]), _read_spec(data["spec"]), value)


def _array(array: np.ndarray[Any, np.dtype[Any]]) -> dict[str, Any]:
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    text = base64.b64encode(little.tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "bytes": text}


def _read_array(data: Mapping[str, Any]) -> Any:
    dtype = np.dtype(str(data["dtype"]))
    flat = np.frombuffer(base64.b64decode(data["bytes"], validate=True), dtype.newbyteorder("<"))
    return flat.astype(dtype).reshape([int(n) for n in data["shape"]])
