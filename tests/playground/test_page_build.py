"""The committed page is what its sources build, and it is small. Needs Node and the packages of frontend/."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

FRONTEND = Path(__file__).parents[2] / "frontend"
PAGE = Path(__file__).parents[2] / "src" / "firstlight" / "playground" / "static" / "playground.html"


def test_the_page_is_at_most_120_kilobytes_compressed():
    assert len(gzip.compress(PAGE.read_bytes(), 9)) <= 120 * 1024


def test_no_formula_in_javascript():
    """The page draws; constants of the theory belong into Python."""
    for source in (FRONTEND / "src").glob("*.ts"):
        text = source.read_text(encoding="utf-8")
        for word in ("Math.random", "Math.tanh", "Math.exp(", "SQRT2", "0.6931", "erf("):
            assert word not in text, f"{source.name} computes with {word}"


def test_the_committed_page_is_what_the_sources_build(tmp_path):
    node = shutil.which("node")
    vite = FRONTEND / "node_modules" / "vite" / "bin" / "vite.js"
    if node is None or not vite.exists():
        pytest.skip("needs Node and `npm ci` in frontend/")
    tsc = FRONTEND / "node_modules" / "typescript" / "bin" / "tsc"
    for command in ([node, str(tsc), "--noEmit"], [node, str(vite), "build", "--outDir", str(tmp_path)]):
        done = subprocess.run(command, cwd=FRONTEND, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "index.html").read_text("utf-8") == PAGE.read_text("utf-8")
