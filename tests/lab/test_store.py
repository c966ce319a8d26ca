"""A store loses nothing and counts nothing twice."""

import resource
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from firstlight.errors import DataError, InputError
from firstlight.lab.experiment import Part, run_key
from firstlight.lab.store import Store


@dataclass(frozen=True)
class Config:
    depth: int = 3
    rates: tuple[float, ...] = (0.1, 0.2)


PART = Part("test/part", Config, lambda config, seeds: [[{"x": s}] for s in seeds])
OTHER = Part("test/other", Config, PART.run, version=2)


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path / "results" if request.param == "folder" else f"memory://{tmp_path.name}")


def test_rows_come_back_with_their_identity(store: Store) -> None:
    store.write(PART, Config(), 4, [{"layer": 1, "x": 0.5}, {"layer": 2, "x": float("nan")}])
    store.write(PART, Config(depth=7), 4, [])
    frame = store.frame(PART)
    assert len(frame) == 3
    assert set(frame["depth"]) == {3, 7}
    assert set(frame["seed"]) == {4}
    assert frame["rates"].iloc[0] == "[0.1, 0.2]"
    assert store.finished("test/part") == {run_key(PART, Config(), 4), run_key(PART, Config(depth=7), 4)}


def test_a_run_that_is_done_twice_counts_once(store: Store) -> None:
    for _ in range(2):
        store.write(PART, Config(), 1, [{"x": 1.0}])
    assert len(store.frame(PART)) == 1


def test_the_key_is_of_content_and_version() -> None:
    same = run_key(PART, Config(3, (0.1, 0.2)), 1)
    assert run_key(PART, Config(), 1) == same
    others = {
        run_key(PART, Config(), 2),
        run_key(PART, Config(4), 1),
        run_key(OTHER, Config(), 1),
        run_key(Part("test/part", Config, PART.run, version=2), Config(), 1),
    }
    assert len(others | {same}) == 5


@dataclass(frozen=True)
class Optional(Config):
    gain: float | None = None


def test_a_number_that_some_runs_lack_is_a_number(store: Store) -> None:
    part = Part("test/part", Optional, PART.run)
    store.write(part, Optional(), 1, [{"x": 1.0}])
    store.write(part, Optional(gain=1.5), 1, [{"x": 2.0}])
    gains = store.frame(part).sort_values("x")["gain"]
    assert gains.dtype == float
    assert gains.isna().tolist() == [True, False]
    assert store.query("SELECT count(gain) AS n FROM test_part")["n"].tolist() == [1]


@dataclass(frozen=True)
class Longer(Config):
    width: int = 8


def test_a_field_that_is_added_later_disowns_no_run(store: Store) -> None:
    longer = Part("test/part", Longer, PART.run)
    store.write(PART, Config(7), 1, [{"x": 1.0}])
    assert store.finished("test/part") == {run_key(longer, Longer(7), 1)}
    store.write(longer, Longer(7, width=16), 1, [{"x": 2.0}])
    frame = store.frame(longer).sort_values("x")
    assert frame["width"].tolist() == [8, 16]


def test_packing_keeps_every_run_once(store: Store) -> None:
    for seed in range(5):
        store.write(PART, Config(), seed, [{"x": seed}])
    before, keys = store.frame(PART), store.finished("test/part")
    assert store.pack("test/part") == 5
    assert len(store.files("test/part")) == 1
    assert store.finished("test/part") == keys
    store.write(PART, Config(), 2, [{"x": 2}])  # packed and single: still one
    for _ in range(2):
        after = store.frame(PART)
        pd.testing.assert_frame_equal(
            after.sort_values("seed").reset_index(drop=True), before.sort_values("seed").reset_index(drop=True)
        )
        assert store.pack("test/part") in (0, 5)  # and so it is when it is packed again


def test_results_of_another_version_are_not_mixed_in(store: Store) -> None:
    store.write(OTHER, Config(), 1, [{"x": 1}])
    newer = Part("test/other", Config, PART.run, version=3)
    with pytest.raises(DataError, match="version 2"):
        store.frame(newer)
    store.write(newer, Config(), 1, [{"x": 9}])
    assert store.frame(newer)["x"].tolist() == [9]


def test_sql_sees_each_part_and_all_runs(store: Store) -> None:
    store.write(PART, Config(), 1, [{"x": 1.0}, {"x": 3.0}])
    store.write(OTHER, Config(), 1, [{"y": 5}])
    assert store.query("SELECT avg(x) AS m FROM test_part")["m"].tolist() == [2.0]
    assert store.query("SELECT count(*) AS n FROM runs")["n"].tolist() == [3]
    with pytest.raises(InputError, match="test_part"):
        store.query("SELECT nothing FROM nowhere")


def test_sql_mixes_no_versions_of_a_part(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = Part("test/other", Config, PART.run, version=3)
    store.write(OTHER, Config(), 1, [{"x": 1.0}])
    store.write(newer, Config(), 1, [{"x": 9.0}])
    store.write(PART, Config(), 1, [{"x": 5.0}])
    monkeypatch.setattr("firstlight.lab.store.part_of", {"test/other": newer, "test/part": PART}.__getitem__)
    for view, values in (("test_other", [9.0]), ("runs", [5.0, 9.0]), ("every_version", [1.0, 5.0, 9.0])):
        answer = store.query(f"SELECT x FROM {view} ORDER BY x")
        assert answer["x"].tolist() == values
        assert answer.attrs["left_out"] == ["1 runs of test/other are of version 2, not 3"]
    monkeypatch.setattr("firstlight.lab.store.part_of", {"test/other": PART, "test/part": PART}.__getitem__)
    assert store.query("SELECT count(*) AS n FROM test_other")["n"].tolist() == [0]
    assert store.query("SELECT x FROM runs")["x"].tolist() == [5.0]


def test_an_empty_store_says_what_to_run(store: Store) -> None:
    with pytest.raises(DataError, match="firstlight reproduce test"):
        store.frame(PART)
    with pytest.raises(DataError, match="no finished run"):
        store.query("SELECT 1")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(PART, Config(), 1, [{"x": 1.0}])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # the kernel now refuses files above 100 bytes
    try:
        with pytest.raises(DataError, match="finished work is kept"):
            store.write(PART, Config(), 2, [{"x": 2.0}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.frame(PART)["seed"].tolist() == [1]
    assert [p.suffix for p in (tmp_path / "test" / "part").iterdir()] == [".parquet"]
    store.write(PART, Config(), 2, [{"x": 2.0}])
    assert sorted(store.frame(PART)["seed"]) == [1, 2]


def test_a_store_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="can be written"):
        Store(tmp_path / "file" / "results").check_writable()
    with pytest.raises(InputError, match="fsspec"):
        Store("nosuchprotocol://x")


def test_leftovers_and_damaged_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = store.write(PART, Config(), 1, [{"x": 1.0}])
    folder = tmp_path / "test" / "part"
    (folder / f".{key}.parquet.99.part").write_bytes(b"half")  # what a killed writer leaves
    assert store.finished("test/part") == {key}
    (folder / f"{key}.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(DataError, match="Delete it"):
        store.frame(PART)
