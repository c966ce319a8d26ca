"""The canonical benchmark: labels stand, quick cases are judged as they trained, remedies are lines that run."""

from __future__ import annotations

import csv

import pytest
import torch

from benchmarks.canonical import label
from benchmarks.canonical.case import cases
from benchmarks.canonical.label import LABELS, levels, name_of
from benchmarks.canonical.problems import SAMPLES, text
from benchmarks.canonical.score import Labelled, again, ask, labelled

# Draws on data that come with scikit-learn, quick to build, of every file: broken ones and what only looks so.
QUICK = [
    "zeros_everywhere", "ones_deep", "all_positive", "dead_by_bias", "one_weight_is_nan", "never_drawn",
    "softmax_over_one_unit", "targets_broadcast", "tanh_cannot_reach_the_targets", "no_function_between_layers",
    "no_function_but_linearly_separable", "detach_at_the_end", "all_frozen", "nothing_registered", "root_of_negative",
    "only_the_head_registered", "softmax_before_cross_entropy", "relu_behind_healthy_logits",
    "logits_times_a_millionth",
    "inputs_of_1e_9", "far_from_zero", "raw_table_relu", "divided_by_a_deviation_of_zero", "zero_classifier",
    "lora_with_zero_b", "lora_with_zero_a_and_b", "gpt_with_zero_projections", "weight_norm", "gru_orthogonal",
    "experts_with_a_zero_router", "pooling_by_a_zero_query", "one_layer_of_1e_12",
]  # fmt: skip
# Of these, the ones that never start, and mend themselves by one line in well under a second of training.
MENDED = [
    "zeros_everywhere", "dead_by_bias", "never_drawn", "softmax_over_one_unit", "targets_broadcast",
    "tanh_cannot_reach_the_targets", "no_function_between_layers", "detach_at_the_end", "all_frozen",
    "nothing_registered", "root_of_negative", "inputs_of_1e_9", "lora_with_zero_a_and_b",
]  # fmt: skip


def rows() -> dict[str, Labelled]:
    return {row.case.name: row for row in labelled() if row.seed == 0}


def test_every_label_belongs_to_a_case_and_follows_from_its_levels() -> None:
    with LABELS.open(newline="") as file:
        for row in csv.DictReader(file):
            assert int(row["seed"]) < cases()[row["case"]].seeds
            assert row["label"] == name_of([float(row[key]) for key in ("level", "second", "third")])


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_case_is_judged_as_it_trained(name: str) -> None:
    row = rows()[name]
    answer = ask(row)
    assert row.label != "ambiguous"
    assert answer.broken == (row.label == "never"), answer
    if answer.broken and row.case.cause:
        assert answer.codes[0] in row.case.cause


@pytest.mark.parametrize("name", MENDED)
def test_the_first_remedy_is_a_line_that_makes_it_start(name: str) -> None:
    row = rows()[name]
    assert row.label == "never"
    after, level = again(row, ask(row).remedy)
    assert (after, level < 0.9) == ("starts", True), ask(row).remedy


@pytest.mark.parametrize(
    ("name", "expected"), [("zeros_everywhere", "never"), ("no_function_but_linearly_separable", "starts")]
)
def test_stacked_runs_come_out_as_single_ones(name: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    together, _ = levels(*cases()[name].draw(0), 0)
    monkeypatch.setattr(label, "possible", lambda model, x: False)
    alone, _ = levels(*cases()[name].draw(0), 0)
    assert name_of(together) == name_of(alone) == expected


def test_characters_come_from_prose_and_are_shifted_by_one() -> None:
    problem = text()
    assert problem.x.shape == problem.y.shape == (SAMPLES, 16)
    assert torch.equal(problem.x[:, 1:], problem.y[:, :-1])
    assert 2.5 < problem.chance(SAMPLES) < 3.2  # nats per letter of English, by frequency alone
