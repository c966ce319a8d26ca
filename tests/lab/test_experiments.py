"""Every experiment runs at tiny size and draws its figures; theory and measurement agree where they must."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from firstlight.errors import DataError, InputError, RegistryError
from firstlight.lab.data import load
from firstlight.lab.engines import in_process
from firstlight.lab.experiment import Task, configure, experiment_names, part_of, parts
from firstlight.lab.experiments import _tasks, hanin_2018, sussillo_2014, xavier_article
from firstlight.lab.experiments._learning import Learning, learning
from firstlight.lab.figures import sussillo_2014 as sussillo_figures
from firstlight.lab.figures._forms import form_of, mark, one_form
from firstlight.lab.figures._style import style
from firstlight.lab.reproduce import chosen_figures, draw, figures, tasks_of
from firstlight.lab.store import Store
from firstlight.lab.sweep import run_tasks
from firstlight.theory import lengths


def _tiny(config: object) -> object:
    """The configuration with every count made small."""
    small = {
        "draws": 6,
        "steps": 8,
        "epochs": 1,
        "samples": 300,
        "reports": 2,
        "parameters": 0,
        "width": 0,
        "points": 10,
    }
    names = {f for f in small if hasattr(config, f)}
    changes = {name: small[name] for name in names - {"width", "parameters", "reports"}}
    if hasattr(config, "parameters"):
        changes |= {"parameters": 0, "width": 8, "reports": 2, "steps": 4, "count_mistakes": False}
        changes["depth"] = min(config.depth, 12)
        changes["rates"] = config.rates[:2]
        changes["pilot"] = min(config.pilot, 2)
    return replace(config, **changes)  # type: ignore[type-var]


@pytest.fixture
def images() -> None:
    """MNIST, from `$FIRSTLIGHT_DATA`, the cache or a mirror."""
    try:
        load("mnist")
    except DataError as error:
        pytest.skip(str(error))


def test_every_experiment_has_parts_grids_and_figures() -> None:
    assert {"sussillo-2014", "hanin-2018", "xavier-article"} <= set(experiment_names())
    for name in experiment_names():
        for short, part in parts(name).items():
            assert part.name == f"{name}/{short}"
            part.config()
            assert part.quick()
            assert part.full()
        needed = {short for needs, _ in figures(name).values() for short in needs}
        assert needed == set(parts(name))


@pytest.mark.parametrize("name", experiment_names())
@pytest.mark.usefixtures("images")
def test_every_figure_is_drawn_from_a_tiny_run(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for part in parts(name).values():
        # reading the speech set takes longer than all the rest
        grid = [(c, seeds) for c, seeds in part.quick() if "speech" not in getattr(c, "task", "")]
        grid = grid[:4] if part.name == "xavier-article/plane" else grid  # a thousand steps each
        seen = set()
        for config, seeds in grid:
            tiny = _tiny(config)
            if tiny in seen:
                continue
            seen.add(tiny)
            for seed, rows in zip(seeds[:2], part.run(tiny, seeds[:2]), strict=True):
                store.write(part, tiny, seed, rows)
    for figure in figures(name):
        path = draw(name, figure, store, tmp_path / f"{figure}.png")
        assert path.stat().st_size > 5000
    assert not list(tmp_path.glob("*.part"))


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(RegistryError, match="'hanin-2018'"):
        parts("hanin-2017")
    with pytest.raises(RegistryError, match="'sussillo-2014/moments'"):
        part_of("sussillo-2014/moment")
    with pytest.raises(RegistryError, match="'claim'"):
        chosen_figures("hanin-2018", "clam")
    with pytest.raises(InputError, match="'width'"):
        configure(part_of("sussillo-2014/walks"), {"widht": 3}, "here")
    with pytest.raises(InputError, match="plain"):
        configure(part_of("hanin-2018/start"), {"kind": "planar"}, "here")


def test_the_widths_of_figure_3_have_their_sums() -> None:
    for shape in ("alternating", "wide first", "narrow first"):
        net = hanin_2018.Net(depth=10, shape=shape)
        assert lengths.inverse_width_sum(hanin_2018.widths(net)) == pytest.approx(5 / 30 + 5 / 10)


def test_one_figure_asks_for_what_it_shows_and_all_figures_for_everything() -> None:
    for name in experiment_names():
        runs = {(t.part, t.config, s) for t in tasks_of(name, None, "quick") for s in t.seeds}
        each = [{(t.part, t.config, s) for t in tasks_of(name, f, "quick") for s in t.seeds} for f in figures(name)]
        assert all(each)
        assert set.union(*each) == runs
        assert runs == {(p.name, c, s) for p in parts(name).values() for c, seeds in p.quick() for s in seeds}
    assert {t.config.kind for t in tasks_of("hanin-2018", "4", "full")} == {"conv"}
    assert {t.config.depth for t in tasks_of("hanin-2018", "claim", "full")} == {10, 100}


def test_seeds_are_grouped_as_the_part_asks_for() -> None:
    claim = tasks_of("hanin-2018", "claim", "full")
    assert all(len(t.seeds) <= (1 if t.config.width == 100 else 6) for t in claim)
    for width in (10, 100):
        assert {s for t in claim if t.config.width == width for s in t.seeds} == set(range(40))


@pytest.mark.usefixtures("images")
def test_mean_lengths_follow_the_law_of_each_initialization() -> None:
    for name, factor in (("He normal", 1.0), ("truncated He", 0.7737413035), ("LeCun or Glorot size", 0.5)):
        net = hanin_2018.Net(4, 60, scheme=hanin_2018.LAWS[name], draws=3000)
        ((row,),) = hanin_2018.lengths(net, [1])
        assert abs(row["mean"] - factor**4) < 4 * row["error"]


def test_zero_weights_stay_at_a_guess_and_ones_learn() -> None:
    (zero,) = xavier_article.plane(xavier_article.Plane("gaussian", 0.0, 20), [0])
    (one,) = xavier_article.plane(xavier_article.Plane("gaussian", 1.0, 20), [0])
    assert [row["cost"] for row in zero] == pytest.approx([np.log(2)] * 4, rel=1e-6)
    assert one[-1]["cost"] < 0.5 * one[0]["cost"]


def test_the_chain_is_exact() -> None:
    for factor in (0.5, 1.5):
        (rows,) = xavier_article.chain(xavier_article.Chain(factor), [0])
        assert [r["activation"] for r in rows] == pytest.approx([2**0.5 * factor**k for k in range(10)])
        assert [r["gradient"] for r in rows] == pytest.approx([2**0.5 * factor ** (9 - k) for k in range(10)])


def test_a_walk_without_drift() -> None:
    ((row,),) = sussillo_2014.moments(sussillo_2014.Walk(depth=30, width=20, draws=2000), [3])
    assert abs(row["mean"]) < 4 * row["mean_error"]


def test_the_command_line_reproduces_sweeps_and_answers(tmp_path: Path) -> None:
    from firstlight.cli import app

    run = CliRunner()
    listed = run.invoke(app, ["reproduce"])
    assert "hanin-2018: figures 1a" in listed.output
    out = tmp_path / "out"
    done = run.invoke(app, ["reproduce", "xavier-article", "--figure", "chain", "--out", str(out), "--image", "svg"])
    assert done.exit_code == 0, done.output
    assert (out / "xavier-article-chain.svg").read_text().startswith("<?xml")
    rows = run.invoke(
        app, ["results", "SELECT count(*) AS n FROM xavier_article_chain", "--store", str(out / "store"), "-f", "csv"]
    )
    assert rows.output.split() == ["n", "30"]
    file = tmp_path / "s.toml"
    file.write_text('experiment = "xavier-article/chain"\n[grid]\nfactor = [0.9, 1.1]\n')
    swept = run.invoke(app, ["sweep", str(file), "--out", str(tmp_path / "swept")])
    assert "2 runs done" in swept.output
    assert "0 runs done, 2 were there" in run.invoke(app, ["sweep", str(file), "--out", str(tmp_path / "swept")]).output
    wrong = run.invoke(app, ["reproduce", "xavier-articel"])
    assert wrong.exit_code == 2
    assert run.invoke(app, ["results", "SELECT 1", "--store", str(tmp_path / "none")]).exit_code == 2


def test_a_folder_that_cannot_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    from firstlight.errors import DataError
    from firstlight.lab.reproduce import reproduce

    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can be written"):
        reproduce("xavier-article", tmp_path / "file" / "x", engine=in_process)


def test_a_figure_shows_runs_of_one_form() -> None:
    quick = [{"steps": 10, "samples": 500, "depth": d, "seed": s} for d in (1, 2, 3) for s in (0, 1)]
    full = [{"steps": 100, "samples": 0, "depth": d, "seed": s} for d in (1, 2, 3, 4) for s in (0, 1)]
    more = [row | {"samples": 0} for row in quick]

    def shown(rows: list[dict[str, int]]) -> set[tuple[int, int]]:
        frame = one_form(pd.DataFrame(rows), ["steps", "samples"], ["depth", "seed"])
        return {*zip(frame["steps"], frame["samples"], strict=True)}

    assert shown(quick + full) == {(100, 0)}
    assert shown(quick + full[:3]) == {(10, 500)}  # a full grid that is only begun displaces nothing
    assert shown(quick + full[:6]) == {(100, 0)}  # of equals the one with more work
    assert shown(quick + more) == {(10, 0)}  # no limit is more than a limit


def test_the_claim_is_drawn_from_the_runs_of_one_form_and_says_its_error(tmp_path: Path) -> None:
    store, part = Store(tmp_path), part_of("hanin-2018/start")
    for depth, times in ((10, (4.0, 5.0, 6.0)), (100, (1.0, 2.0, 3.0))):
        for seed, epochs in enumerate(times):
            net = hanin_2018.Net(depth=depth, width=depth)
            store.write(part, net, seed, [{"epochs_to_start": epochs, "accuracy": 0.2, "overflow_step": None}])
            short = replace(net, epochs=8, samples=20_000)
            store.write(part, short, seed, [{"epochs_to_start": None, "accuracy": 0.1, "overflow_step": None}])
    with style():
        figure = figures("hanin-2018")["claim"][1](store.frame(part))
        texts = " ".join(text.get_text() for text in figure.texts)
    assert "3 networks each" in texts
    # means 5 and 2, each with a standard error of 1/√3
    assert "3.00 ± 1.63 epochs" in " ".join(texts.split())


def test_a_caption_says_of_which_form_the_runs_are() -> None:
    def said(keys: str, quick: str, full: str) -> str:
        return form_of(mark(pd.DataFrame({"key": list(keys)}), set(quick), set(full))).strip()

    assert said("ab", "ab", "cdef") == "Quick form, 2 runs."
    assert said("cddd", "ab", "cdef") == "Full form, 2 runs."  # rows of one run have one key
    assert said("ab", "ab", "abcd") == "Quick form, 2 runs."  # the first seeds of the full form
    assert said("abc", "ab", "abcd") == "Full form, 3 runs."
    assert said("ab", "ab", "ab") == "Full form, 2 runs."  # the forms are the same
    assert said("xy", "ab", "cdef") == "Of a sweep, 2 runs."
    assert said("acx", "ab", "cdef") == "Of several forms, 3 runs."
    assert form_of(pd.DataFrame({"key": ["a"]})) == ""


@pytest.mark.usefixtures("images")
def test_the_mean_image_as_answer_has_the_error_that_is_drawn() -> None:
    (x, _), _, _, _ = _tasks.task_data("mnist-autoencoder")
    assert sussillo_figures.MEAN_SAMPLE["mnist-autoencoder"] == pytest.approx(x.var(0).mean(), abs=0.001)


@pytest.mark.usefixtures("images")
def test_after_a_pilot_the_best_rate_alone_goes_on() -> None:
    config = Learning(
        depth=2, width=8, scheme="he", rates=(1e-6, 0.1, 1e30), pilot=30, steps=20, samples=500, reports=2
    )
    both, (alone,) = learning(config, [0, 1]), learning(config, [1])
    for rows in both:
        tried = {row["rate"]: row["pilot_loss"] for row in rows if "pilot_loss" in row}
        assert set(tried) == set(config.rates)
        assert tried[0.1] < tried[1e-6] < np.inf == tried[1e30]  # an overflow is the worst
        trained = [row for row in rows if "loss" in row]
        assert {row["rate"] for row in trained} == {0.1}
        assert [row["step"] for row in trained] == [10, 20]
    assert [r["loss"] for r in both[1] if "loss" in r] == pytest.approx([r["loss"] for r in alone if "loss" in r])


def test_nothing_is_done_where_one_of_the_runs_could_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(tasks: object, url: str, inside: object = None) -> Iterator[int]:
        raise AssertionError("work was begun")

    store = Store(tmp_path / "store")
    part = "sussillo-2014/moments"
    good, bad = (Task(part, sussillo_2014.Walk(depth=2, width=4, draws=9, scheme=s), (0,)) for s in ("he", "hee"))
    with pytest.raises(RegistryError, match="'he'"):
        run_tasks([good, bad], store, nobody)
    with pytest.raises(InputError, match="'mnist'"):
        run_tasks([good, Task("sussillo-2014/depth", Learning(task="mnits"), (0,))], store, nobody)
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("FIRSTLIGHT_DATA", str(tmp_path / "other"))
    monkeypatch.setattr(
        "firstlight.lab.experiments._tasks._arrays", _tasks._arrays.__wrapped__
    )  # not what is in memory
    with pytest.raises(DataError, match="FIRSTLIGHT_DATA"):
        run_tasks([good, Task("sussillo-2014/depth", Learning("speech"), (0,))], store, nobody)
    assert not (tmp_path / "store").exists()


def test_a_store_that_has_everything_need_not_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, task = Store(tmp_path), Task("xavier-article/chain", xavier_article.Chain(), (0,))
    assert run_tasks([task], store, in_process) == (1, 0)

    def refuse(self: Store) -> None:
        raise DataError("store", got="read-only", expected="a place that can be written")

    monkeypatch.setattr(Store, "check_writable", refuse)
    assert run_tasks([task], store, in_process) == (0, 1)
    with pytest.raises(DataError, match="can be written"):
        run_tasks([replace(task, seeds=(0, 1))], store, in_process)
