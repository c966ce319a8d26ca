import pytest

from firstlight.graph.operations import METADATA, RANDOM, SHAPE_ONLY, SPELLINGS, canonical
from firstlight.graph.signatures import SIGNATURES, signature


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("add", "add"), ("add_", "add"), ("__iadd__", "add"), ("__add__", "add"), ("__radd__", "add"),
        ("__rsub__", "sub"), ("subtract", "sub"), ("__itruediv__", "div"), ("true_divide", "div"),
        ("__matmul__", "matmul"), ("__imatmul__", "matmul"), ("__getitem__", "getitem"), ("__invert__", "bitwise_not"),
        ("__rand__", "bitwise_and"), ("rand", "rand"), ("special_expit", "sigmoid"), ("concat", "cat"),
        ("relu_", "relu"), ("_weight_norm", "weight_norm"), ("scatter_add_", "scatter_add"), ("float", "to"),
        ("mul.default", "mul"), ("an_operation_nobody_knows", "an_operation_nobody_knows"), ("", ""),
    ],
)  # fmt: skip
def test_every_spelling_of_an_operation_gets_its_one_name(spelling, name):
    assert canonical(spelling) == name


def test_canonical_names_are_fixed_points():
    for name in {*SPELLINGS.values(), *SIGNATURES}:
        assert canonical(name) == name


def test_the_tables_do_not_contradict_each_other():
    assert not RANDOM & SHAPE_ONLY
    assert not METADATA & set(SIGNATURES)


def test_every_signature_can_be_read():
    for op in SIGNATURES:
        known = signature(op)
        assert known is not None
        assert len({*known[0], *known[1]}) == len(known[0]) + len(known[1])
    assert signature("an_operation_nobody_knows") is None
