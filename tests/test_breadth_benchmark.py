"""The benchmark on networks of others: its judge tells what runs from what does not, and its table is kept by name."""

import torch
from torch import nn

from benchmarks import breadth
from benchmarks.breadth import unusual, written
from benchmarks.breadth.candidate import Candidate, tensor
from benchmarks.breadth.judge import Trial


class Refuses(nn.Module):
    """Calls an operation of which nobody knows a rule."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Linear(8, 8)

    def forward(self, x):
        return torch.special.hermite_polynomial_h(self.weight(x), 3)


def test_a_network_that_all_verbs_run_on():
    row = Trial(next(c for c in written.CANDIDATES if c.name == "complex rotary")).run()
    assert (row.failed, row.missing, row.verdict) == ("", "", "starts"), row
    assert row.forward == row.backward == 1.0, row.detail


def test_a_recurrent_cell_and_a_cast_in_the_middle():
    for name in ("half inside", "in place"):
        row = Trial(next(c for c in unusual.CANDIDATES if c.name == name)).run()
        assert (row.failed, row.missing, row.verdict) == ("", "", "starts"), row


def test_what_has_no_rule_is_named_and_measured():
    row = Trial(Candidate("refuses", "here", Refuses, tensor(8, 8))).run()
    assert row.missing == "special_hermite_polynomial_h"
    assert row.forward > 0.0


def test_lines_are_kept_by_name_worst_first(tmp_path):
    ok = breadth.record(breadth.Result("b", "here", forward=1.0, backward=0.5))
    bad = breadth.record(breadth.Result("a", "here", failed="trace", error="/some/where/file.py: no"))
    assert "/some" not in bad["error"]
    path = tmp_path / "table.csv"
    breadth.write({"b": ok, "a": bad}, path)
    assert list(breadth.read(path)) == ["a", "b"]
    assert breadth.summary([ok, bad])["all verbs run"] == "1"


def test_names_are_unique():
    names = [c.name for c in breadth.candidates()]
    assert len(names) == len(set(names))
