"""Operations that are run on drawn entries: what belongs together is drawn together, and it fluctuates."""

import math

import numpy as np
import pytest
import torch

import firstlight
from firstlight.capture.sampled import _defined, _size
from tests.rules.drawn_nodes import Behind, gradient_ratios

RESOLUTION = 0.1  # of a few sampled draws


def gram(x):
    matrices = x.view(-1, 8, 8)
    return matrices.mT @ matrices + 0.1 * torch.eye(8)


MET = {
    "an angle to a positive number": (lambda x: torch.atan2(x[:, :32], x[:, 32:].exp()), "atan2"),
    "the determinant of a product with itself": (lambda x: torch.logdet(gram(x)), "logdet"),
    "the root of one": (lambda x: torch.linalg.cholesky(gram(x)), "linalg_cholesky"),
    "the sum of singular values": (lambda x: torch.linalg.matrix_norm(x.view(-1, 8, 8), "nuc"), "linalg_matrix_norm"),
    "the largest one": (lambda x: torch.linalg.norm(x.view(-1, 8, 8), 2, (1, 2)), "linalg_norm"),
    "the largest sum of a column": (lambda x: torch.linalg.matrix_norm(x.view(-1, 8, 8), 1), "linalg_matrix_norm"),
    "the smallest of a row": (lambda x: torch.linalg.matrix_norm(x.view(-1, 8, 8), -np.inf), "linalg_matrix_norm"),
}


@pytest.mark.parametrize("what", MET)
def test_an_operation_that_is_run_meets_draws(what):
    f, op = MET[what]
    torch.manual_seed(0)
    model, x = Behind(f, 64), torch.randn(16, 64)
    found = firstlight.predict(model, x, "he")
    known = {n.name: n for n in firstlight.measure(model, x, draws=32, scheme="he").nodes}
    node = next(n for n in found.nodes if n.op == op)
    logs = np.asarray(known[node.name].log_q.values)
    error = float(np.exp(logs).std(ddof=1) / np.exp(logs).mean() / 32**0.5)
    assert abs(math.log(node.output.q / np.exp(logs).mean())) <= 4.0 * error + RESOLUTION
    (row,) = gradient_ratios(model, x, ["maps.0:linear"], 32)
    if op != "atan2":  # what comes back through eʸ is small where y is long, which no measured gradient tells
        assert abs(math.log(row[1])) <= 4.0 * row[2] + RESOLUTION, row


def test_what_is_measured_fluctuates_with_its_input():
    """A median is a multiple of its input's length; beside that it has a scatter of its own."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16, bias=False) for _ in range(12)))
    model.append(Behind(lambda y: y.median(-1)[0], 16))
    x = torch.randn(4, 16)
    found = firstlight.predict(model, x, "he").nodes[-1]
    logs = np.asarray(firstlight.measure(model, x, draws=400, scheme="he", backward=False).nodes[-1].log_q.values)
    assert found.op == "median"
    assert abs(math.log(found.output.log_sd / logs.std(ddof=1))) <= 4.0 / 800**0.5 + 2 * RESOLUTION


def test_what_goes_along_an_input_is_known_to():
    """ln Σe^x of running sums is subtracted from them again (minGRU): their lengths had been those of other tensors."""

    def gates(x):
        keep, value = -torch.nn.functional.softplus(x[..., :16]), x[..., 16:]
        total = keep.cumsum(1)
        return total + (value - total).logcumsumexp(1)

    torch.manual_seed(0)
    model, x = Behind(gates, 32), torch.randn(8, 40, 32)
    found = firstlight.predict(model, x, "he")
    drawn = np.asarray(firstlight.measure(model, x, draws=16, scheme="he", backward=False).nodes[-1].log_q.values)
    assert abs(found.nodes[-1].output.log_mean - drawn.mean()) < math.log(2.0)  # a twentieth of what cancels
    assert found.nodes[-1].output.log_sd < 1.0
    assert found.p_start > 0.9


def test_a_margin_that_is_kept_is_no_dead_layer():
    def loss(x):
        apart = (x[:8] - x[8:]).norm(dim=-1)
        return (apart.square() + torch.relu(0.1 - apart).square()).mean()

    torch.manual_seed(0)
    assert firstlight.predict(Behind(loss, 64), torch.randn(16, 64), "he").p_start > 0.9
    blocked = torch.nn.Sequential(Behind(lambda x: torch.relu(x.norm(dim=-1, keepdim=True).neg()), 64))
    assert firstlight.predict(blocked, torch.randn(16, 64), "he").p_start < 0.1


def test_mean_squares_of_few_and_of_undefined_entries():
    assert _size(torch.zeros(0, 3)) == 0.0
    assert _size(torch.tensor([[3.0]])) == pytest.approx(9.0)
    assert _size(torch.tensor([1, -3])) == pytest.approx(5.0)
    assert _size(torch.tensor([3.0 + 4.0j])) == pytest.approx(25.0)
    assert _size(torch.tensor([2e19, 0.0])) == pytest.approx(2e38)  # beyond float32 when it is squared
    partly = torch.tensor([1.0, -3.0, math.nan, math.inf])
    assert _size(partly) == pytest.approx(5.0)
    assert _defined(partly).isfinite().all()
