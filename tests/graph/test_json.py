import json
import math
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.errors import DataError
from firstlight.graph.build import Builder
from firstlight.graph.ir import ConstantRef, Graph, Law, Node, ParameterRef, Ref
from firstlight.graph.json import SCHEMA, dumps, loads


def example() -> Graph:
    b = Builder("Net")
    x = b.input(2, 3, path="x.0")
    law = Law(0.0, math.inf, math.nan, row_q=np.array([1.0, np.nan, -np.inf]))
    w = b.parameter('w"\u2028.<b>', 3, 3, law=law)
    m = b.constant(np.array([[True, False, True]]), "mask")
    h = b.node("linear", x, w, None, shape=(2, 3), module="a b/ü")
    b.node("masked_fill", h, m, -math.inf)
    b.node("getitem", h, (("slice", None, -1, None), "..."), shape=(1, 3), scale=math.nan, z=1 + 2j, on=True)
    return replace(b.graph(), notes=("one", "two"), batch_dim=None, training=False)


def same(a: Graph, b: Graph) -> bool:
    """Equality by text, in which NaN equals NaN."""
    return dumps(a) == dumps(b)


def test_round_trip_keeps_everything():
    graph = example()
    text = dumps(graph)
    back = loads(text)
    assert same(graph, back)
    assert back.nodes[1] == graph.nodes[1]
    assert back.nodes[2].args[2] == -math.inf
    assert math.isnan(back.nodes[3].options["scale"])
    assert back.nodes[3].options["z"] == 1 + 2j
    assert back.nodes[3].options["on"] is True
    assert back.nodes[3].args[1] == (("slice", None, -1, None), "...")
    assert back.constants["mask"].value.dtype == bool
    (parameter,) = back.parameters.values()
    assert parameter.law.variance == math.inf
    np.testing.assert_array_equal(parameter.law.row_q, [1.0, np.nan, -np.inf])
    assert isinstance(back.parameters, MappingProxyType)


def test_the_text_is_strict_json_without_nan():
    def refuse(word):
        raise AssertionError(word)

    json.loads(dumps(example()), parse_constant=refuse)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int8", "bool", "uint8", "float16", "complex64"])
def test_arrays_of_every_type_come_back_bit_for_bit(dtype):
    value = np.arange(6).reshape(2, 3).astype(dtype)
    b = Builder()
    b.input(1)
    b.constant(value, "c")
    found = loads(dumps(b.graph())).constants["c"].value
    assert found.dtype == value.dtype
    assert found.tobytes() == value.tobytes()
    assert found.shape == (2, 3)


def test_an_empty_and_a_scalar_array():
    for value in (np.zeros((0, 3)), np.float64(2.5)):
        b = Builder()
        b.input(1)
        b.constant(value, "c")
        np.testing.assert_array_equal(loads(dumps(b.graph())).constants["c"].value, value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"kind": "firstlight.report", "schema": 1}', "\x00"],
)
def test_refuses_what_is_no_graph(text):
    with pytest.raises(DataError):
        loads(text)


def test_refuses_another_schema_and_says_what_to_do():
    content = json.loads(dumps(example()))
    content["schema"] = SCHEMA + 1
    with pytest.raises(DataError, match=rf"schema {SCHEMA + 1}.*expected schema {SCHEMA}.*Write the graph again"):
        loads(json.dumps(content))


@pytest.mark.parametrize("part", ["nodes", "outputs", "parameters", "constants", "training", "notes"])
def test_refuses_a_graph_with_a_part_missing(part):
    content = json.loads(dumps(example()))
    del content[part]
    with pytest.raises(DataError, match="damaged"):
        loads(json.dumps(content))


def test_refuses_a_damaged_array():
    content = json.loads(dumps(example()))
    content["constants"][0]["value"]["bytes"] = "%%%"
    with pytest.raises(DataError, match="damaged"):
        loads(json.dumps(content))


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(),
    st.builds(Ref, st.text(), st.integers(0, 3)),
    st.builds(ParameterRef, st.text()),
    st.builds(ConstantRef, st.text()),
)
arguments = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(arguments, max_size=4), st.dictionaries(st.text(), arguments, max_size=3), st.text())
def test_any_arguments_come_back(args, options, name):
    graph = Graph((Node(name, "op", tuple(args), MappingProxyType(options)),), (Ref(name),))
    (node,) = loads(dumps(graph)).nodes
    assert node.args == tuple(args)
    assert dict(node.options) == options
    assert node.name == name
