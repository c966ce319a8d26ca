"""The registry, the explanations and the report's forms."""

from __future__ import annotations

import subprocess
import sys

import pytest
from check_cases import case, each, mlp

import firstlight as fl
from firstlight.checks import registry
from firstlight.errors import DataError, RegistryError


def test_a_code_is_taken_once() -> None:
    with pytest.raises(RegistryError, match="OUT001"):

        @registry.check("OUT001", stage=1)
        def again(e):  # type: ignore[no-untyped-def]
            """Again.

            What it measures:
                a
            Why it matters:
                a
            When it is harmless:
                a
            Remedy:
                a
            Source:
                a
            """


def test_a_check_without_its_sections_is_refused() -> None:
    with pytest.raises(RegistryError, match="Remedy"):

        @registry.check("XXX001", stage=1)
        def bare(e):  # type: ignore[no-untyped-def]
            """Bare."""


@pytest.mark.parametrize("check", registry.checks(), ids=lambda c: c.code)
def test_every_check_explains_itself(check: registry.Check) -> None:
    text = fl.explain(check.code.lower())
    assert text.startswith(f"{check.code}: {check.title}")
    for name in registry.SECTIONS:
        assert len(check.section(name)) > 10


def test_an_unknown_code_names_the_known_ones() -> None:
    with pytest.raises(RegistryError, match="FWD001"):
        fl.explain("FWD999")


def test_forms() -> None:
    c = case(each(mlp(), lambda p: p.zero_()))
    r = fl.diagnose(c.model, c.batch, c.loss, targets=c.targets)
    assert fl.Report.from_json(r.to_json()) == r
    frame = r.to_frame()
    assert list(frame["code"]) == [f.code for f in r.findings]
    text = str(r)
    assert "WILL NOT START" in text
    assert "What to do" in text
    assert max(len(line) for line in text.splitlines()) <= 100
    with pytest.raises(DataError):
        fl.Report.from_json("{}")


def test_causes_come_before_consequences() -> None:
    c = case(each(mlp(), lambda p: p.zero_()))
    r = fl.diagnose(c.model, c.batch, c.loss, targets=c.targets, try_remedies=False)
    codes = [f.code for f in r.errors]
    assert codes.index("WGT003") < codes.index("FWD004")


def test_checks_need_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import firstlight.checks.verdict, firstlight.checks.remedy"
    subprocess.run([sys.executable, "-c", code], check=True)
