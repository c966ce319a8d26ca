"""The floors, the files and the registries are what the design says."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import firstlight
from firstlight.theory import activations, bibliography

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "firstlight"
FILES = sorted(SOURCE.rglob("*.py"))
OTHERS = sorted(
    path
    for folder, kinds in {"tests": "*.py", "benchmarks": "*.py", "docs": "*.py", "frontend/src": "*.*"}.items()
    for path in (ROOT / folder).rglob(kinds)
)
TORCH_FREE = ("errors", "theory", "graph", "rules", "propagate", "checks")
MODULES = {path: ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in FILES}
FLOOR = {
    "errors": -1,
    "theory": 0,
    "graph": 1,
    "rules": 2,
    "propagate": 3,
    "checks": 3,
    "capture": 4,
    "schemes": 4,
    "api": 5,
    "lab": 6,
    "report": 6,
    "playground": 6,
    "integrations": 6,
    "cli": 7,
}


def module_name(path: Path) -> str:
    return MODULES[path].removesuffix(".__init__")


def unit(path: Path) -> str:
    """The floor's folder or file that a source file belongs to."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


@pytest.mark.parametrize("floor", [name for name in TORCH_FREE if list(SOURCE.glob(f"{name}*"))])
def test_the_mathematics_imports_without_torch(floor):
    """Every module of the floor is imported in a fresh process in which importing torch is an error."""
    names = [module_name(p) for p in FILES if unit(p) == floor]
    program = "import sys\nsys.modules['torch'] = None\nimport importlib\n" + "".join(
        f"importlib.import_module({name!r})\n" for name in names
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_the_package_loads_neither_torch_nor_scipy():
    program = (
        "import sys, firstlight\n"
        "assert not {'torch', 'scipy', 'numpy', 'pandas'} & set(sys.modules), sorted(sys.modules)\n"
        "assert 'gain' in dir(firstlight)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", firstlight.__all__)
def test_public_names_exist_and_are_documented(name):
    thing = getattr(firstlight, name)
    assert name == "__version__" or thing.__doc__


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_verb"):
        _ = firstlight.no_such_verb


def test_public_names_are_typed_too():
    """The names that type checkers see are those that exist at run time."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    typed = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed - {None, "annotations"} >= set(firstlight.__all__) - {"__version__"}


def imports(path: Path) -> set[str]:
    """Floors that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("firstlight.")}
    return found & set(FLOOR)


@pytest.mark.parametrize("path", [p for p in FILES if unit(p) != "__init__"], ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down_only(path):
    here = unit(path)
    assert here in FLOOR, f"{here} stands on no floor of the design"
    for other in imports(path) - {here}:
        faces = FLOOR[other] == FLOOR[here] == FLOOR["lab"]  # siblings among the faces may meet
        assert faces or FLOOR[other] < FLOOR[here], f"{path.relative_to(ROOT)} imports {other}"


def test_the_rule_about_imports_catches_a_climb(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from firstlight import api\nimport firstlight.lab.trainer\nfrom firstlight.theory import cross\n")
    assert imports(bad) == {"api", "lab", "theory"}


def test_files_stay_small():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in [*FILES, *OTHERS]}
    assert not {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > 400}
    assert statistics.median(lengths[path] for path in FILES) <= 150


def test_no_drawer_of_odds_and_ends():
    odd = {"utils", "helpers", "common", "core", "misc"}
    assert not [p for p in FILES if p.stem in odd or p.parent.name in odd]


def test_every_activation_stands_in_the_list():
    tree = ast.parse((SOURCE / "theory" / "activations.py").read_text(encoding="utf-8"))
    decorated = [
        decorator.args[0].value
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "activation"
        if isinstance(decorator.args[0], ast.Constant)
    ]
    assert tuple(decorated) == activations.names()
    for name in decorated:
        assert activations.get(name).name == name


def registering_calls(folder: str, decorator: str) -> dict[str, int]:
    """Number of uses of a decorator by module in a folder."""
    counts: dict[str, int] = {}
    for path in sorted((SOURCE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                for item in node.decorator_list:
                    name = item.func if isinstance(item, ast.Call) else item
                    counts[MODULES[path]] = counts.get(MODULES[path], 0) + (getattr(name, "id", "") == decorator)
    return {module: n for module, n in counts.items() if n}


@pytest.mark.parametrize(("folder", "decorator"), [("checks", "check"), ("schemes", "scheme"), ("rules", "rule")])
def test_every_file_that_registers_is_loaded_by_its_registry(folder, decorator):
    """A file with decorated entries that nobody imports would silently be missing."""
    modules = registering_calls(folder, decorator)
    if not modules:
        pytest.skip(f"{folder} registers nothing with @{decorator}")
    program = (
        f"import sys, firstlight.{folder}, firstlight.{folder}.registry as r\n"
        "known = ('names', 'codes', 'every', 'load', 'table')\n"
        "loader = next((getattr(r, n) for n in known if hasattr(r, n)), None)\n"
        "loader and loader()\n"
        f"print([m for m in {sorted(modules)!r} if m not in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"


def cited(docstring: str) -> list[str]:
    """Keys under "References" of a docstring: "key, key (why)", over one or more lines."""
    match = re.search(r"^\s*References?:\n((?:[ \t]+\S.*\n?)+)", docstring, flags=re.MULTILINE)
    if match is None:
        return []
    plain = re.sub(r"\([^)]*\)", "", match.group(1))
    return [key for key in re.split(r"[\s,;.]+", plain) if key]


def citations() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                name = getattr(node, "name", "module")
                found += [(f"{path.relative_to(SOURCE)}:{name}", key) for key in cited(text or "")]
            if (
                isinstance(node, ast.keyword)
                and node.arg in ("refs", "reference")
                and isinstance(node.value, (ast.Constant, ast.Tuple))
            ):
                items = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                keys = [i.value for i in items if isinstance(i, ast.Constant) and isinstance(i.value, str)]
                found += [(f"{path.relative_to(SOURCE)}:{node.value.lineno}", key) for key in keys if key]
    return found


def test_every_reference_is_in_the_bibliography():
    found = citations()
    assert len(found) > 50
    known = set(bibliography.keys())
    assert not [(where, key) for where, key in found if key not in known]


def test_the_reader_of_references_reads_them():
    text = "Line.\n\nArgs:\n    x: y\n\nReferences:\n    poole2016, cho2009 (relu: arc-cosine)\n"
    assert cited(text) == ["poole2016", "cho2009"]
    assert cited("See the References below.") == []


@pytest.mark.parametrize("key", bibliography.keys())
def test_bibliography_entries_are_whole(key):
    entry = bibliography.bibtex(key)
    assert entry.startswith("@")
    assert all(f"  {name} = {{" in entry for name in ("author", "title", "year"))
    assert ("eprint" in entry) != ("howpublished" in entry)
    assert entry.count("{") == entry.count("}")
    year = re.search(r"year = \{(\d{4})\}", entry)
    assert year is not None
    assert 1990 <= int(year.group(1)) <= 2026
    assert year.group(1) in bibliography.citation(key)


def test_unknown_reference_suggests_a_near_one():
    with pytest.raises(firstlight.FirstlightError, match="poole2016"):
        bibliography.bibtex("pole2016")


def test_modules_have_docstrings_and_future_annotations():
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        if path.name != "__init__.py":
            assert any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body), path


@pytest.mark.parametrize("path", sorted((SOURCE / "theory").glob("*.py")), ids=lambda p: p.stem)
def test_examples_in_the_theory_run(path):
    module = importlib.import_module(module_name(path))
    assert doctest.testmod(module).failed == 0


def test_the_example_of_gain_runs():
    finder = doctest.DocTestFinder()
    (example,) = [t for t in finder.find(firstlight.gain, "gain", globs={"gain": firstlight.gain}) if t.examples]
    assert doctest.DocTestRunner().run(example).failed == 0


def test_no_two_test_modules_have_one_name():
    """The test runner takes the second for the first and stops, when both are collected."""
    names = Counter(p.name for p in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
