"""Views by strides against drawn weights: overlapping windows, also of memory in another order than the axes."""

from math import prod

import pytest
import torch

import firstlight
from firstlight.capture.trace import trace
from tests.rules.drawn_nodes import Behind, compared

WIDTH, DRAWS = 32, 100


def chunks(x):
    """Longformer's windows, of which each shares a half with the next, of a transposed tensor."""
    x = x.transpose(0, 1).unflatten(1, (2, 4))
    strides = list(x.stride())
    strides[1] //= 2
    return x.as_strided((x.shape[0], 3, 4, WIDTH), strides)


def windows(x):
    """Windows of three places that begin at the second."""
    return x.as_strided((8, 5, 3, WIDTH), (8 * WIDTH, WIDTH, WIDTH, 1), WIDTH)


CASES = [
    (chunks, (8, 4)),
    (lambda x: chunks(x).mean(2), (8, 4)),
    (windows, (8, 8)),
    (lambda x: x.as_strided((8, 8, 3, 15), (8 * WIDTH, WIDTH, 8, 1)).relu(), (8, 8)),
]


@pytest.mark.parametrize(("f", "shape"), CASES, ids=["chunks", "means of chunks", "windows", "of units"])
def test_windows_of_memory_are_entries_of_the_tensor(f, shape):
    shape = (*shape, WIDTH)
    for n in compared(f, shape, DRAWS):
        # where windows begin an input that is given is as long as it is, and not as all places are
        assert abs(n.q_z) < 4.0 or n.q_predicted == pytest.approx(
            n.q_measured, rel=3.0 * (2.0 / prod(shape) * 4.0) ** 0.5
        )
        assert abs(n.grad_q_z or 0.0) < 4.0


def test_a_method_that_takes_the_condition_second():
    """x.where(condition, y) chooses x where the condition holds: the mask of Longformer's borders hid nothing."""

    def masked(x):
        return torch.full_like(x, float("-inf")).where(torch.eye(WIDTH, dtype=torch.bool)[:8], x).softmax(-1)

    where = next(n for n in trace(Behind(masked, WIDTH), (torch.randn(4, 8, WIDTH),), {}).nodes if n.op == "where")
    assert [getattr(a, "node", "") for a in where.args] == ["", "", "maps.0:linear"]
    *_, last = compared(masked, (4, 8, WIDTH), DRAWS)
    assert abs(last.q_z) < 4.0


def test_a_constant_of_many_like_entries_is_known():
    """Zeros to write into, more than are kept one by one."""

    def written(x):
        room = x.new_zeros(3000, 1500)
        room[:4, :WIDTH] = x
        return room

    *_, linear, last = firstlight.predict(Behind(written, WIDTH), torch.randn(4, WIDTH), "he").nodes
    assert last.output.q == pytest.approx(linear.output.q * 4 * WIDTH / 4_500_000, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_a_constant_of_many_like_entries_keeps_its_type(dtype):
    """A mask that hides nothing is no bias of 0 or 1."""
    many = torch.ones(3000, 1500, dtype=dtype)
    graph = trace(Behind(lambda x: x.sum() * many, WIDTH), (torch.randn(4, WIDTH),), {})
    known = [c.value for c in graph.constants.values() if c.value is not None and c.value.shape == many.shape]
    assert [v.dtype for v in known] == [many.numpy().dtype]
