from types import MappingProxyType

import pytest

from firstlight.graph.build import Builder
from firstlight.graph.ir import Ref, TensorSpec
from firstlight.graph.normalize import bound, drop_dead_nodes, normalize, readers


def test_arguments_get_their_names_and_defaults():
    b = Builder()
    x = b.input(4, 3, 8, 8)
    w = b.parameter("w", 5, 3, 3, 3)
    b.node("conv2d", x, w, None, 2, (1, 1), shape=(4, 5, 4, 4))
    node = normalize(b.graph()).nodes[-1]
    assert node.args == (x, w)
    assert dict(node.options) == {"bias": None, "stride": 2, "padding": (1, 1), "dilation": 1, "groups": 1}


@pytest.mark.parametrize(
    ("args", "options"),
    [((1, 2), {}), ((1,), {"dim1": 2}), ((), {"dim0": 1, "dim1": 2})],
)
def test_the_same_node_however_the_arguments_came(args, options):
    b = Builder()
    x = b.input(2, 3, 4)
    b.node("transpose", x, *args, shape=(2, 4, 3), **options)
    node = normalize(b.graph()).nodes[-1]
    assert node.args == (x, 1, 2)
    assert not node.options


def test_other_names_of_the_same_argument():
    b = Builder()
    x = b.input(2, 3)
    assert bound(b.graph(b.node("sum", x, axis=1, keepdims=True, shape=(2, 1))).nodes[-1]).options == {
        "dim": 1,
        "keepdim": True,
        "dtype": None,
    }


def test_an_unknown_operation_keeps_what_it_had():
    b = Builder()
    b.node("mystery", b.input(2), 3, flavour="x")
    node = normalize(b.graph()).nodes[-1]
    assert node.args == (Ref(":input"), 3)
    assert dict(node.options) == {"flavour": "x"}


def test_too_many_arguments_are_left_as_they_are():
    b = Builder()
    b.node("linear", b.input(2), 1, 2, 3, 4)
    assert normalize(b.graph()).nodes[-1].args == (Ref(":input"), 1, 2, 3, 4)


def test_matrix_products_and_maxima_are_told_apart_by_their_arguments():
    b = Builder()
    x, y = b.input(2, 2), b.input(2, 2)
    b.node("mm", x, y)
    b.node("max", x, y)
    b.node("max", x, 1, outputs=(TensorSpec((2,), "float32"), TensorSpec((2,), "int64")))
    b.node("var", x, False, shape=())
    ops = [n for n in normalize(b.graph(), drop_dead=False).nodes if n.op != "input"]
    assert [n.op for n in ops] == ["matmul", "maximum", "max", "var"]
    assert ops[2].options["dim"] == 1
    assert ops[3].options["unbiased"] is False
    assert ops[3].options["dim"] is None


def test_no_ops_go_and_their_readers_read_the_source():
    b = Builder()
    x = b.input(4, 6)
    h = b.node("contiguous", x)
    h = b.node("clone", h)
    h = b.node("to", h, dtype="float32")
    h = b.node("view", h, (4, 6))
    h = b.node("dropout", h, p=0.5, training=False)
    h = b.node("dropout", h, p=0.0, training=True)
    h = b.node("relu", h)
    last = b.node("clone", h)
    graph = normalize(b.graph(last))
    assert [n.name for n in graph.nodes] == [":input", ":relu"]
    assert graph.nodes[-1].args == (x,)
    assert graph.outputs == (Ref(":relu"),)


def test_what_looks_like_a_no_op_but_is_none_stays():
    b = Builder()
    x = b.input(4, 6)
    h = b.node("detach", x)  # cuts the gradient
    h = b.node("dropout", h, p=0.5, training=True)
    h = b.node("view", h, (6, 4), shape=(6, 4))
    h = b.node("to", h, dtype="float64", outputs=(TensorSpec((6, 4), "float64"),))
    graph = normalize(b.graph(h))
    assert [n.op for n in graph.nodes] == ["input", "detach", "dropout", "view", "to"]


def test_a_copied_weight_is_read_directly_but_stays_where_it_is_an_output():
    b = Builder()
    w = b.parameter("w", 3, 3)
    copy = b.node("clone", w, shape=(3, 3))
    y = b.node("matmul", b.input(3, 3), copy)
    assert normalize(b.graph(y)).nodes[-1].args[1] == w
    assert "clone" in [n.op for n in normalize(b.graph(copy)).nodes]


def test_dead_nodes_go_and_are_counted_but_inputs_stay():
    b = Builder()
    x, _ = b.input(2), b.input(3)
    y = b.node("relu", x)
    b.node("tanh", x)
    b.node("exp", x)
    graph = drop_dead_nodes(b.graph(y))
    assert [n.name for n in graph.nodes] == [":input", ":input#1", ":relu"]
    assert graph.notes == ("2 operation(s) on which no output depends were left out.",)
    assert drop_dead_nodes(graph) is graph


def test_references_in_options_keep_a_node_alive_and_are_rewired():
    b = Builder()
    x = b.input(2, 2)
    mask = b.node("clone", b.node("gt", x, 0, dtype="bool"), dtype="bool")
    y = b.node("scaled_dot_product_attention", x, x, x, attn_mask=mask)
    graph = normalize(b.graph(y))
    assert [n.op for n in graph.nodes] == ["input", "gt", "scaled_dot_product_attention"]
    assert graph.nodes[-1].options["attn_mask"] == Ref(":gt")


def test_normalising_twice_changes_nothing_more():
    b = Builder()
    x = b.input(4, 6)
    h = b.node("dropout", b.node("clone", x), 0.1, True)
    once = normalize(b.graph(b.node("sum", h, 1, shape=(4,))))
    assert normalize(once) == once


def test_readers_lists_each_reader_once():
    b = Builder()
    x = b.input(2)
    y = b.node("mul", x, x)
    found = readers(b.graph(y).nodes)
    assert [n.name for n in found[":input"]] == [":mul"]


def test_the_graph_given_is_not_changed():
    b = Builder()
    b.node("clone", b.input(2))
    graph = b.graph()
    before = graph.nodes
    normalize(graph)
    assert graph.nodes is before
    assert isinstance(graph.nodes[0].options, MappingProxyType)
