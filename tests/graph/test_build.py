import numpy as np
import pytest

from firstlight.errors import InputError
from firstlight.graph.build import Builder
from firstlight.graph.ir import ConstantRef, ParameterRef, Ref, TensorSpec


def test_a_graph_by_hand_has_the_names_of_a_captured_one():
    b = Builder("Net", training=False)
    x = b.input(8, 4)
    w = b.parameter("fc.weight", 3, 4, module_type="Linear")
    h = b.node("linear", x, w, shape=(8, 3), module="fc", module_type="Linear")
    y = b.node("relu", b.node("relu", h))
    c = b.constant([True, False, True])
    b.node("masked_fill", y, c, value=0.0)
    graph = b.graph(y)
    assert [n.name for n in graph.nodes] == [":input", "fc:linear", ":relu", ":relu#1", ":masked_fill"]
    assert graph.outputs == (Ref(":relu#1"),)
    assert graph[":relu#1"].outputs == (TensorSpec((8, 3), "float32"),)
    assert graph["fc:linear"].args == (Ref(":input"), ParameterRef("fc.weight"))
    assert isinstance(c, ConstantRef)
    np.testing.assert_array_equal(graph.constants[c.name].value, [True, False, True])
    assert not graph.training


def test_several_outputs_and_references_inside_tuples():
    b = Builder()
    x = b.input(2, 6)
    parts = b.node("chunk", x, 2, outputs=(TensorSpec((2, 3), "float32"),) * 2)
    joined = b.node("cat", (parts, Ref(parts.node, 1)), shape=(2, 6), dim=-1)
    node = b.graph().nodes[-1]
    assert node.name == joined.node
    assert node.refs == (Ref(":chunk"), Ref(":chunk", 1))


def test_refuses_a_second_parameter_of_the_same_name_and_a_node_without_shape():
    b = Builder()
    b.parameter("w", 2)
    with pytest.raises(InputError, match="unique"):
        b.parameter("w", 3)
    with pytest.raises(InputError, match="no shape"):
        b.node("randn")
