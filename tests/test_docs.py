"""The documentation is true: its code runs, its commands exist, its tables and names are those of the registries."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import firstlight

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in _FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python") and p.name != "README.md"], ids=named)
def test_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for body in blocks(page, "python"):
        exec(compile(body, named(page), "exec"), namespace)
    assert list(tmp_path.iterdir()) == []  # reading the documentation leaves no files behind


def test_readme_says_what_its_example_prints():
    """The comments "will not start" and "starts" are the verdicts."""
    (body,) = blocks(ROOT / "README.md", "python")
    code = body.replace("print(firstlight.diagnose", "verdicts.append(firstlight.diagnose")
    namespace = {"verdicts": []}
    exec(code, namespace)
    assert [report.verdict for report in namespace["verdicts"]] == ["will not start", "starts"]


def test_readme_says_how_often_predictions_miss():
    with (ROOT / "benchmarks" / "accuracy" / "table.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    (everything,) = [row for row in table if row["network"] == "all"]
    said = f"{everything['operations']} operations of {len(table) - 2} predicted cases, {everything['missed']} have"
    assert said in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_examples_run(example, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or list(tmp_path.iterdir())


def commands(page: Path) -> list[list[str]]:
    found = []
    for body in blocks(page, "sh"):
        for line in body.splitlines():
            words = shlex.split(line.split("  #")[0])
            if words:
                found.append(words)
    inline = re.findall(r"`(firstlight [a-z][^`]*)`", page.read_text(encoding="utf-8"))
    return found + [shlex.split(text) for text in inline]


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=named)
def test_commands_exist_with_their_options(page):
    import click
    import typer

    from firstlight.cli import app

    group = typer.main.get_command(app)
    for words in commands(page):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), words
        if words[0] != "firstlight":
            continue
        command = group.get_command(click.Context(group), words[1])
        assert command is not None, words
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        assert {w for w in words[2:] if w.startswith("-")} <= known, words


def test_commands_of_getting_started_work(tmp_path):
    """The three lines of the page, on a model that fits them."""
    source = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    (tmp_path / "nets.py").write_text(source, encoding="utf-8")
    lines = [c for c in commands(ROOT / "docs" / "getting_started.md") if c[0] == "firstlight"]
    assert [c[1] for c in lines[:3]] == ["diagnose", "init", "explain"]
    for words in lines[:3]:
        done = subprocess.run(
            [sys.executable, "-c", "from firstlight.cli import main; main()", *words[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode in (0, 1), (words, done.stderr)
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert (tmp_path / "weights.pt").stat().st_size > 1000


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_names_of_the_library_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\bfirstlight\.([a-zA-Z_]\w*)", text):
        assert name in firstlight.__all__ or importlib.util.find_spec(f"firstlight.{name}"), name
    for path in re.findall(r"`((?:src|tests|docs|examples)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_local_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), target


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_tables_hold_every_registered_entry():
    from firstlight.checks.registry import checks
    from firstlight.rules import registry as rules
    from firstlight.schemes import schemes
    from firstlight.theory import activations, bibliography

    make, iter_keys = generator(), bibliography.keys()
    tables = {name: table() for name, table in make.TABLES.items()}
    assert all(f"| `{n}` |" in tables["activations"] for n in activations.names())
    assert all(f"| `{s.name}` |" in tables["schemes"] for s in schemes())
    assert all(f"## {c.code} " in tables["checks"] for c in checks())
    assert all(f"`{op}`" in tables["rules"] for op in rules.table())
    assert all(f"### {k} " in tables["bibliography"] for k in iter_keys)
    for name, table in tables.items():
        rows = [line for line in table.splitlines() if line.startswith("|")]
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
        assert len(widths) <= 1 or name == "contributing", (name, widths)


def test_marks_name_tables():
    make = generator()
    for page in PAGES:
        for name in re.findall(r"<!-- generated: (\S+) -->", page.read_text(encoding="utf-8")):
            assert name in make.TABLES, (page, name)
    with pytest.raises(KeyError):
        make.on_page_markdown("<!-- generated: nonsense -->")


def test_pages_are_all_in_the_navigation():
    make, docs = generator(), ROOT / "docs"
    config = make.on_config({"nav": [{"Start": ["index.md"]}, {"Inside": []}], "docs_dir": str(docs)})
    assert sorted(make._pages(config["nav"])) == sorted(p.relative_to(docs).as_posix() for p in docs.rglob("*.md"))
    for page in re.findall(r"^ +- ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE):
        assert (docs / page).exists(), page


def test_the_picture_of_the_readme_is_small_and_made_by_its_script():
    image = ROOT / "docs" / "img" / "walks.png"
    assert image.read_bytes().startswith(b"\x89PNG")
    assert image.stat().st_size < 150_000
    assert "examples/walks.py" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
