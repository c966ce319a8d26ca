"""Sweeps: files are checked before any work; what was interrupted ends where a straight run does."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from firstlight.errors import DataError, InputError, RegistryError
from firstlight.lab import progress
from firstlight.lab.engines import Inside, engine, in_process, pending
from firstlight.lab.experiment import Task
from firstlight.lab.models import StackConfig
from firstlight.lab.store import Store
from firstlight.lab.sweep import read_sweep, run_tasks
from firstlight.lab.trainer import Training, train

EXAMPLES = Path(__file__).parents[2] / "examples"
SWEEP = """
experiment = "sussillo-2014/moments"
seeds = 3
group = 2
[config]
width = 8
draws = 50
[grid]
depth = [2, 4, 8]
activation = ["relu", "linear"]
"""


def _file(folder: Path, text: str = SWEEP) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text)
    return path


def _same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    by = ["key", "seed"]
    pd.testing.assert_frame_equal(a.sort_values(by).reset_index(drop=True), b.sort_values(by).reset_index(drop=True))


def test_a_grid_times_seeds_becomes_tasks(tmp_path: Path) -> None:
    sweep = read_sweep(_file(tmp_path))
    assert len(sweep.tasks) == 6 * 2
    assert sorted(len(t.seeds) for t in sweep.tasks) == [1] * 6 + [2] * 6
    assert {(t.config.depth, t.config.activation) for t in sweep.tasks} == {
        (d, a) for d in (2, 4, 8) for a in ("relu", "linear")
    }
    assert all(t.config.width == 8 and t.config.draws == 50 for t in sweep.tasks)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("sussillo-2014/moments", "susillo-2014/moments", "Did you mean 'sussillo-2014'"),
        ("sussillo-2014/moments", "sussillo-2014/moment", "Did you mean 'sussillo-2014/moments'"),
        ("seeds = 3", "seed = 3", "Did you mean 'seeds'"),
        ("width = 8", "widht = 8", "Did you mean 'width'"),
        ("depth =", "dept =", "Did you mean 'depth'"),
        ("width = 8", 'width = "8"', "a whole number"),
        ("width = 8", "depth = 8", r"both \[config\] and \[grid\]"),
        ("depth = [2, 4, 8]", "depth = 2", "a list of values"),
        ("seeds = 3", "seeds = [1, 1]", "each seed once"),
        ("seeds = 3", "seeds = 0", "at least 1"),
        ("group = 2", "group = 0", "at least 1"),
        ('experiment = "sussillo-2014/moments"', "", "the name of an experiment"),
        ("[grid]", "[grid", "a TOML file"),
    ],
)
def test_mistakes_are_named_before_any_work(tmp_path: Path, before: str, after: str, says: str) -> None:
    assert before in SWEEP
    with pytest.raises((InputError, RegistryError, DataError), match=says):
        read_sweep(_file(tmp_path, SWEEP.replace(before, after)))


@pytest.mark.parametrize(
    ("experiment", "line", "says"),
    [
        ("sussillo-2014/depth", "rates = ['a']", "a list, each entry a number"),
        ("sussillo-2014/depth", "rates = []", "an empty list"),
        ("sussillo-2014/depth", "rates = [0.1, -0.1]", "at least 0"),
        ("sussillo-2014/depth", "rates = [inf]", "at least 0"),
        ("sussillo-2014/depth", "reports = 0", "at least 1"),
        ("sussillo-2014/depth", "samples = -5", "at least 0"),
        ("sussillo-2014/walks", "draws = 1", "at least 2"),
        ("hanin-2018/lengths", "draws = -1", "at least 2"),
        ("hanin-2018/start", "base = nan", "at least 0"),
        ("xavier-article/plane", "factor = -1.0", "at least 0"),
        ("xavier-article/chain", "factor = nan", "expected finite"),
        ("xavier-article/chain", "depth = 0", "at least 1"),
        ("born-dead/dead", "width = 0", "at least 1"),
        ("depth-scales/trained", "weight_variance = -1.0", "at least 0"),
        ("isometry/spectra", "activation = 'tahn'", "activation"),
    ],
)
def test_numbers_that_make_no_run_are_named_before_any_work(
    tmp_path: Path, experiment: str, line: str, says: str
) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises((InputError, RegistryError), match=says):
        run_tasks(read_sweep(_file(tmp_path, f'experiment = "{experiment}"\n[config]\n{line}\n')).tasks, store, _refuse)
    assert not (tmp_path / "store").exists()


def _refuse(tasks: Sequence[Task], url: str, inside: Inside | None = None) -> Iterator[int]:
    raise AssertionError("work was begun")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_sweeps_among_the_examples_can_be_run(path: Path) -> None:
    sweep = read_sweep(path)
    assert len({task.config for task in sweep.tasks}) == len(sweep.tasks) > 1
    assert {task.part for task in sweep.tasks} == {sweep.part.name}


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a TOML file"):
        read_sweep(tmp_path / "nothing.toml")


def test_finished_runs_are_not_done_again(tmp_path: Path) -> None:
    tasks, store = read_sweep(_file(tmp_path)).tasks, Store(tmp_path / "store")
    seen: list[tuple[int, int]] = []
    assert run_tasks(tasks[:3], store, in_process) == (5, 0)
    assert run_tasks(tasks, store, in_process, lambda done, total: seen.append((done, total))) == (13, 5)
    assert seen[0] == (5, 18)
    assert seen[-1] == (18, 18)
    assert run_tasks(tasks, store, in_process) == (0, 18)
    assert len(store.frame("sussillo-2014/moments")) == 18


def test_a_run_that_two_tasks_ask_for_is_done_and_counted_once(tmp_path: Path) -> None:
    task = read_sweep(_file(tmp_path)).tasks[0]
    more = Task(task.part, task.config, (*task.seeds, 7))
    store = Store(tmp_path / "store")
    assert run_tasks([task, more, task], store, in_process) == (3, 0)
    assert run_tasks([task, more], store, in_process) == (0, 3)


def test_only_the_seeds_that_are_missing_are_done(tmp_path: Path) -> None:
    tasks, store = read_sweep(_file(tmp_path)).tasks, Store(tmp_path / "store")
    run_tasks(tasks, store, in_process)
    reference = store.frame("sussillo-2014/moments")
    victim = next(t for t in tasks if len(t.seeds) == 2)
    lost = reference[(reference["seed"] == 0) & (reference["depth"] == victim.config.depth)]["key"]
    for key in lost:
        (tmp_path / "store" / "sussillo-2014" / "moments" / f"{key}.parquet").unlink()
    left = pending(tasks, store)
    assert {t.seeds for t in left} == {(0,)}
    run_tasks(tasks, store, in_process)
    _same(store.frame("sussillo-2014/moments"), reference)  # a seed alone gives what it gave in its group


def test_engines_are_checked() -> None:
    with pytest.raises(InputError, match="'local' or 'ray'"):
        engine("slurm")
    with pytest.raises(InputError, match="at least 1"):
        engine("local", jobs=0)
    with pytest.raises(InputError, match="--engine ray"):
        engine("local", address="auto")


def test_a_disk_that_fills_up_in_the_middle_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    tasks, store = read_sweep(_file(tmp_path)).tasks, Store(tmp_path / "store")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fills_up(tasks: Sequence[Task], url: str, inside: Inside | None = None) -> Iterator[int]:
        for done, runs in enumerate(in_process(tasks, url, inside)):
            if done == 2:  # from the fourth task on the kernel refuses files above 100 bytes
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
            yield runs

    try:
        with pytest.raises(DataError, match="finished work is kept"):
            run_tasks(tasks, store, fills_up)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = sum(len(task.seeds) for task in tasks[:3])
    assert len(store.frame("sussillo-2014/moments")) == kept
    assert run_tasks(tasks, store, in_process) == (18 - kept, kept)
    straight = Store(tmp_path / "straight")
    run_tasks(tasks, straight, in_process)
    _same(store.frame("sussillo-2014/moments"), straight.frame("sussillo-2014/moments"))


DRIVER = """
import sys
from pathlib import Path
from firstlight.lab.engines import engine
from firstlight.lab.experiment import Task
from firstlight.lab.models import StackConfig
from firstlight.lab.store import Store
from firstlight.lab.sweep import read_sweep, run_tasks
from firstlight.lab.trainer import Training, train
run_tasks(read_sweep(Path(sys.argv[1])).tasks, Store(sys.argv[2]), engine("local", int(sys.argv[3])))
"""
SLOW_SWEEP = (
    SWEEP.replace("draws = 50", "draws = 600")
    .replace("[2, 4, 8]", "[100, 150, 200]")
    .replace("width = 8", "width = 40")
)


@contextmanager
def _drive(file: Path, store: Path, jobs: int) -> Iterator[subprocess.Popen[bytes]]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, str(file), str(store), str(jobs)]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def _wait_for_files(store: Path, count: int, driver: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 600
    while len(list(store.rglob("*.parquet"))) < count and driver.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(stat[1]) == pid and b"spawn_main" in command:
                found.append(int(entry.name))
    return found


def test_a_killed_driver_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    file, store = _file(tmp_path, SLOW_SWEEP), tmp_path / "store"
    with _drive(file, store, 1) as driver:
        _wait_for_files(store, 2, driver)
    finished = {p.name: p.stat().st_mtime_ns for p in store.rglob("*.parquet")}
    assert 2 <= len(finished) < 18
    tasks = read_sweep(file).tasks
    run_tasks(tasks, Store(store), in_process)
    for name, written in finished.items():
        assert next(store.rglob(name)).stat().st_mtime_ns == written  # kept, not done again
    frame = Store(store).frame("sussillo-2014/moments")
    assert len(frame) == 18
    assert frame["key"].is_unique


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers in /proc")
def test_killed_workers_are_replaced_and_a_killed_driver_takes_its_workers_along(tmp_path: Path) -> None:
    file, store = _file(tmp_path, SLOW_SWEEP), tmp_path / "store"
    with _drive(file, store, 2) as driver:
        _wait_for_files(store, 1, driver)
        workers = _children(driver.pid)
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        _wait_for_files(store, 6, driver)  # it goes on with a new pool
        workers = _children(driver.pid)
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() and _is_alive(pid) for pid in workers):
        assert time.monotonic() < end, "a worker outlived its driver"
        time.sleep(0.1)
    with _drive(file, store, 2) as again:
        assert again.wait(timeout=1200) == 0
    frame = Store(store).frame("sussillo-2014/moments")
    straight = Store(tmp_path / "straight")
    run_tasks(read_sweep(file).tasks, straight, in_process)
    _same(frame, straight.frame("sussillo-2014/moments"))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_ray_survives_the_death_of_a_node(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    script = tmp_path / "drive.py"
    script.write_text(RAY_DRIVER)
    env = os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    file, store = _file(tmp_path, SLOW_SWEEP), tmp_path / "store"
    done = subprocess.run(
        [sys.executable, str(script), str(file), str(store)],
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    frame = Store(store).frame("sussillo-2014/moments")
    straight = Store(tmp_path / "straight")
    run_tasks(read_sweep(file).tasks, straight, in_process)
    _same(frame, straight.frame("sussillo-2014/moments"))


RAY_DRIVER = """
import sys
from pathlib import Path
from ray.cluster_utils import Cluster
from firstlight.lab.engines import on_ray, pending
from firstlight.lab.experiment import Task
from firstlight.lab.models import StackConfig
from firstlight.lab.store import Store
from firstlight.lab.sweep import read_sweep

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
tasks, store = read_sweep(Path(sys.argv[1])).tasks, Store(sys.argv[2])
done = 0
for runs in on_ray(pending(tasks, store), store.url, cluster.address):
    done += runs
    if second is not None and done >= 3:
        cluster.remove_node(second, allow_graceful=False)
        second = None
assert second is None
assert done == 18, done
cluster.shutdown()
"""


def test_the_inside_of_a_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY_S", 0.0)
    heard: list[float] = []
    config = StackConfig(4, 2, 2, 4)
    x, y = np.zeros((8, 4), np.float32), np.zeros(8, np.int64)
    with progress.listening(heard.append):
        train(config, Training(steps=5, batch=4), (x, y))
    assert heard == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    train(config, Training(steps=5, batch=4), (x, y))  # nobody listens any more
    assert len(heard) == 5


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sweeps_progress_never_passes_its_runs_and_ends_with_them(tmp_path: Path, jobs: int) -> None:
    content = (
        'experiment = "xavier-article/plane"\nseeds = 2\n[grid]\nfactor = [0.5, 1.0, 2.0]\n[config]\npoints = 10\n'
    )
    tasks = read_sweep(_file(tmp_path, content)).tasks
    heard: list[tuple[float, int]] = []
    run_tasks(tasks, Store(tmp_path / "store"), engine("local", jobs), lambda *at: heard.append(at))
    assert heard[0] == (0, 6)
    assert heard[-1] == (6, 6)
    assert all(0 <= done <= total == 6 for done, total in heard)
    assert any(done % 1 for done, _ in heard)  # from inside of runs
    if jobs == 1:
        assert [done for done, _ in heard] == sorted(done for done, _ in heard)
