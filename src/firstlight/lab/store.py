"""Finished runs: one Parquet file each, written whole, in a folder or at any fsspec URL; read with DuckDB.

The layout is `{store}/{experiment}/{part}/{key}.parquet`, where the key is the content hash of (part,
configuration, seed, version). A file is there or it is not: a run that was interrupted left nothing, a run
that is done twice writes the same name. `pack` joins the files of a part into one, `pack-….parquet`, whose
rows keep their keys.
"""

from __future__ import annotations

import contextlib
import io
import json
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstlight.errors import DataError, InputError, RegistryError
from firstlight.lab.checkpoint import write_whole
from firstlight.lab.experiment import Part, Row, part_of, run_key

if TYPE_CHECKING:
    import pandas as pd

IDENTITY = ("key", "part", "version", "seed")


class Store:
    """A folder of finished runs.

    Args:
        url: A local path, or a URL that fsspec knows ("s3://bucket/results", "memory://x").

    Raises:
        InputError: A protocol that fsspec does not know.
    """

    def __init__(self, url: str | Path) -> None:
        import fsspec

        self.url = str(url).rstrip("/")
        self.local = "://" not in self.url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise InputError("store", got=repr(self.url), expected=f"a folder or an fsspec URL ({error})") from error

    def check_writable(self) -> None:
        """Write and remove a small file.

        Raises:
            DataError: The store cannot be written; said before any work is done.
        """
        probe = f"{self._root}/.probe-{uuid.uuid4().hex}"
        try:
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(probe, b"firstlight")
            self._fs.rm_file(probe)
        except Exception as error:
            with contextlib.suppress(Exception):
                self._fs.rm_file(probe)
            raise DataError(
                f"store {self.url}",
                got=f"{type(error).__name__}: {error}",
                expected="a place that can be written",
                action="Choose another with --out, or free it.",
            ) from error

    def _folder(self, part: str) -> str:
        return f"{self._root}/{part}"

    def files(self, part: str) -> list[str]:
        """Paths of a part's files."""
        folder = self._folder(part)
        self._fs.invalidate_cache()
        if not self._fs.exists(folder):
            return []
        return sorted(p for p in self._fs.ls(folder, detail=False) if p.endswith(".parquet"))

    def finished(self, part: str) -> set[str]:
        """Keys of the finished runs of a part.

        Raises:
            DataError: A packed file that cannot be read.
        """
        keys: set[str] = set()
        for path in self.files(part):
            name = path.rsplit("/", 1)[-1].removesuffix(".parquet")
            keys |= set(self._table(path, ["key"])["key"].to_pylist()) if name.startswith("pack-") else {name}
        return keys

    def _table(self, path: str, columns: list[str] | None = None) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with self._fs.open(path, "rb") as file:
                return pq.read_table(file, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                path,
                got=f"a file that cannot be read ({error})",
                expected="a Parquet file",
                action="Delete it.",
            ) from error

    def write(self, part: Part, config: Any, seed: int, rows: list[Row]) -> str:
        """Write a finished run; returns its key.

        The configuration's fields become columns; a run without rows keeps one row of them. Long values
        (tuples) are kept as JSON text.

        Raises:
            DataError: The store is full or cannot be written; nothing half-written is left.
        """
        key = run_key(part, config, seed)
        head: Row = {"key": key, "part": part.name, "version": part.version, "seed": seed}
        head |= {name: _cell(value) for name, value in asdict(config).items()}
        self._put(f"{self._folder(part.name)}/{key}.parquet", _parquet([head | row for row in rows] or [head]))
        return key

    def _put(self, path: str, data: bytes) -> None:
        if self.local:
            write_whole(Path(path), data)
            return
        temporary = f"{path}.{uuid.uuid4().hex}.part"
        try:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(temporary, data)
            self._fs.mv(temporary, path)
        except Exception as error:
            with contextlib.suppress(Exception):
                self._fs.rm_file(temporary)
            raise DataError(
                path, got=f"{type(error).__name__}: {error}", expected="a store that can be written"
            ) from error

    def frame(self, part: Part | str) -> pd.DataFrame:
        """All rows of a part as a data frame; each finished run once.

        Args:
            part: A part (then rows of other versions are left out) or its name.

        Raises:
            DataError: No finished run, or only ones of another version.
        """
        import pandas as pd

        name = part if isinstance(part, str) else part.name
        frames = [self._table(path).to_pandas() for path in self.files(name)]
        if isinstance(part, Part):  # runs that are older than a field were done with its default
            default = {k: _cell(v) for k, v in asdict(part.config()).items()}
            frames = [f.assign(**{k: v for k, v in default.items() if k not in f.columns}) for f in frames]
        if not frames:
            raise DataError(
                f"store {self.url}",
                got=f"no finished run of {name}",
                expected="at least one",
                action=f"Run `firstlight reproduce {name.split('/')[0]} --out {self.url}`.",
            )
        kept: list[pd.DataFrame] = []
        seen: set[str] = set()
        for frame in frames:  # a run that is packed and single counts once
            fresh = frame[~frame["key"].isin(seen)]
            seen |= set(fresh["key"])
            kept.append(fresh)
        table = pd.concat([f for f in kept if len(f)], ignore_index=True)
        for column in table.columns[table.isna().all()]:
            table[column] = float("nan")  # a field that is None in every run has no type of its own
        for column in table.columns[
            [kind.kind == "O" for kind in table.dtypes]
        ]:  # numbers in some runs, None in others
            values = table[column].dropna()
            if len(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
                table[column] = table[column].astype(float)
        if isinstance(part, Part):
            versions = sorted({int(v) for v in table["version"]})
            table = table[table["version"] == part.version].reset_index(drop=True)
            if table.empty:
                raise DataError(
                    f"store {self.url}",
                    got=f"results of {name} version {', '.join(map(str, versions))}",
                    expected=f"version {part.version}",
                    action="Run it again; the old results stay where they are.",
                )
        return table

    def pack(self, part: str) -> int:
        """Join a part's single files into one and remove them; returns the number of runs packed.

        The pack is written before anything is removed, so an interruption leaves duplicates, which count
        once.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        paths = self.files(part)
        if len(paths) < 2:
            return 0
        tables: list[Any] = []
        seen: set[str] = set()
        for path in paths:  # a run that is packed and single is packed once
            table = self._table(path)
            keys = table["key"].to_pylist()
            tables.append(table.filter(pa.array([key not in seen for key in keys])))
            seen |= set(keys)
        buffer = io.BytesIO()
        joined = pa.concat_tables(tables, promote_options="permissive")
        pq.write_table(joined, buffer, compression="zstd")
        self._put(f"{self._folder(part)}/pack-{uuid.uuid4().hex[:12]}.parquet", buffer.getvalue())
        for path in paths:
            self._fs.rm_file(path)
        return len(seen)

    def part_names(self) -> list[str]:
        """Names "experiment/part" of all parts that the store holds."""
        found = self._fs.glob(f"{self._root}/*/*/*.parquet")
        return sorted({"/".join(path.rsplit("/", 3)[1:3]) for path in found})

    def query(self, sql: str) -> pd.DataFrame:
        """Answer a SQL query over the store, with one view per part and `runs` for all.

        The view of "hanin-2018/lengths" is `hanin_2018_lengths`. They hold the runs of the parts' present versions,
        so that no average mixes two; `every_version` holds all.

        Returns:
            The answer; `attrs["left_out"]` says which parts have runs of other versions.

        Raises:
            DataError: An empty store.
            InputError: SQL that DuckDB refuses; its message is passed on.
        """
        import duckdb
        import pandas as pd

        names = self.part_names()
        if not names:
            raise DataError(f"store {self.url}", got="no finished run", expected="at least one")
        frames = {name: self.frame(name) for name in names}
        left_out: list[str] = []
        with duckdb.connect() as connection:
            connection.register("every_version", pd.concat(frames.values(), ignore_index=True))
            for name, frame in frames.items():
                present = _present_version(name)
                kept = frame if present is None else frame[frame["version"] == present]
                if len(kept) < len(frame):
                    old = frame[frame["version"] != present]
                    versions = ", ".join(str(v) for v in sorted(old["version"].unique()))
                    left_out.append(f"{old['key'].nunique()} runs of {name} are of version {versions}, not {present}")
                frames[name] = kept
                connection.register(name.replace("/", "_").replace("-", "_"), kept)
            filled = [frame for frame in frames.values() if len(frame)] or list(frames.values())
            connection.register("runs", pd.concat(filled, ignore_index=True))
            try:
                answer = connection.execute(sql).df()
            except duckdb.Error as error:
                views = ", ".join(n.replace("/", "_").replace("-", "_") for n in names)
                said = " ".join(str(error).split("\n\n")[0].split())
                raise InputError("SQL", got=said, expected=f"a query over runs, {views}") from error
        answer.attrs["left_out"] = left_out
        return answer


def _present_version(name: str) -> int | None:
    """The version of a part's runs that is written now; None for parts that the lab does not have."""
    try:
        return part_of(name).version
    except RegistryError:
        return None


def _cell(value: Any) -> Any:
    """A configuration's value as a table holds it."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _parquet(rows: list[Row]) -> bytes:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False), buffer, compression="zstd")
    return buffer.getvalue()
