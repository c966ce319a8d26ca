"""The demonstration at a small size, on scikit-learn's digits."""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from firstlight.errors import InputError
from firstlight.lab import telling
from firstlight.lab.data.catalogue import load_or_digits
from firstlight.lab.demo import Settings, Story, run
from firstlight.lab.trials import DEFAULT, Net, Outcome, Trial, as_tensors, build, team, train
from firstlight.report.story import render_story

SMALL = Settings(
    depth=30,
    width=32,
    schemes=("he",),
    seeds=(0,),
    steps=150,
    pilot_steps=10,
    rates=(1e-3,),
    dataset="digits",
    workers=1,
)
NET = Net(depth=4, width=16, activation="relu", inputs=64, outputs=10)


@pytest.fixture(scope="module")
def told() -> tuple[Story, str]:
    stream = StringIO()
    return run(SMALL, console=Console(file=stream, width=100)), stream.getvalue()


def test_the_story_that_a_stranger_reads(told: tuple[Story, str]) -> None:
    story, text = told
    assert story.started(DEFAULT) == 0
    assert story.started("he") == 1
    assert story.best == "he"
    assert story.reports[DEFAULT].verdict == "will not start"
    # guessing the commonest of ten nearly equal classes
    assert story.chance_loss == pytest.approx(math.log(10), abs=0.01)
    assert abs(story.accuracy(DEFAULT) - story.chance) < 0.05
    assert story.accuracy("he") > 0.3
    flat = " ".join(text.split())
    for part in (
        "scikit-learn's bundled digits",
        "1. What fails",
        "will not start",
        "each layer hands on 0.167 of it",
        "2. What is changed",
        "3. What that does",
        "1 of 1",
        "As PyTorch draws it, the network learns nothing",
        "Learning rate: each start was first trained for 10 steps with each of 0.001",
    ):
        assert part in flat, part


def test_the_page_tells_the_same(told: tuple[Story, str]) -> None:
    story, _ = told
    page = render_story(story)
    for part in ("30 layers that cannot start, and then do", telling.moral(story), "Test accuracy", "Will not start"):
        assert part in page
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert len(page.encode()) < 300_000


def test_words_follow_the_numbers(told: tuple[Story, str]) -> None:
    story, _ = told
    good = dict.fromkeys(story.outcomes, story.outcomes["he"])
    assert "PyTorch's default starts too" in telling.moral(replace(story, outcomes=good))
    bad = dict.fromkeys(story.outcomes, story.outcomes[DEFAULT])
    assert "No start gets this network going" in telling.moral(replace(story, outcomes=bad))
    assert telling.law("tanh") == ""  # no single factor there
    assert "hands on 0.333 of it" in telling.law("linear")


def test_a_trial_is_determined_by_its_fields() -> None:
    data = as_tensors(load_or_digits("digits"))
    trial = Trial(NET, "he", 1e-3, seed=3, steps=20)
    one, other = train(trial, data), train(trial, data)
    assert one.loss == other.loss
    assert one.accuracy == other.accuracy
    assert train(replace(trial, seed=4), data).loss != one.loss
    before = torch.random.get_rng_state()
    build(NET, DEFAULT, 0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_divergence_is_an_outcome() -> None:
    data = as_tensors(load_or_digits("digits"))
    outcome = train(Trial(replace(NET, activation="linear"), "he", 1e30, seed=0, steps=50), data)
    assert outcome.diverged_at is not None
    assert math.isnan(outcome.final_loss)
    assert not outcome.started(2.3)


def test_workers_give_what_one_process_gives_and_end() -> None:
    data = as_tensors(load_or_digits("digits"))
    trials = [Trial(NET, "he", 1e-3, seed, 20) for seed in (0, 1)]
    seen: list[int] = []
    outcomes: list[Outcome] = []
    with pytest.raises(KeyboardInterrupt):
        _run_and_interrupt(trials, outcomes, seen)
    assert [outcome.trial for outcome in outcomes] == trials
    assert [outcome.loss for outcome in outcomes] == [train(trial, data).loss for trial in trials]
    assert seen[-1] == 40
    assert not multiprocessing.active_children()


def _run_and_interrupt(trials: list[Trial], outcomes: list[Outcome], seen: list[int]) -> None:
    with team("digits", None, workers=1) as workers:
        outcomes += workers.run(trials, seen.append)
        workers.run([replace(trials[0], steps=10**9)], _interrupt)  # would last for days


def _interrupt(done: int) -> None:
    if done > 40:
        raise KeyboardInterrupt


def test_settings_refuse_before_any_work(tmp_path: Path) -> None:
    for wrong in ({"depth": 1}, {"width": 0}, {"activation": "rellu"}, {"dataset": "cifar"}):
        with pytest.raises(InputError):
            replace(SMALL, **wrong)
    quick = Settings(seeds=(5, 6)).quick()
    assert (quick.seeds, quick.schemes) == ((5,), ("he", "random-walk"))
    assert Settings(schemes=("he", "he", DEFAULT)).starts == (DEFAULT, "he")


def outcome(final_loss: float) -> Outcome:
    return Outcome(Trial(NET, "he", 1e-3, 0, 1), (1,), (final_loss,), (0, 1), (0.1, 0.1), final_loss, None, 0.0)


def test_started_is_measured_against_guessing() -> None:
    assert outcome(2.0).started(2.3)
    assert not outcome(2.2).started(2.3)
    assert not outcome(math.nan).started(2.3)
