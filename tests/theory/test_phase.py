"""Phase diagrams against the fixed points' own definitions, and their faces."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import firstlight
from firstlight.cli import app
from firstlight.errors import InputError
from firstlight.report import phase as report


def test_the_critical_line_of_tanh_parts_order_from_chaos():
    d = firstlight.phase_diagram("tanh", np.linspace(0.8, 2.4, 5), (0.1, 0.3))
    # THEORY: σ_b² = .01 has its critical σ_w² at 1.4242
    assert d.critical[0] ** 2 == pytest.approx(1.4242, abs=1e-4)
    for i in range(2):
        assert np.all((d.chi[i] < 1.0) == (np.array(d.sigma_w) < d.critical[i]))
    nearest = np.abs(np.array(d.sigma_w) - d.critical[0]).argmin()
    assert d.correlation_scale[0].argmax() == nearest


def test_lengths_that_never_settle_are_said_so():
    d = firstlight.phase_diagram("relu", (1.0, 2.0), (0.1,))
    assert np.isfinite(d.q[0, 0])
    assert np.isnan(d.q[0, 1])
    assert "grow without end" in report.text(d)


@pytest.mark.parametrize(("w", "b"), [((), (0.1,)), ((0.0,), (0.1,)), ((1.0,), (-0.1,)), ((np.nan,), (0.0,))])
def test_unusable_grids_are_refused(w, b):
    with pytest.raises(InputError, match="phase_diagram"):
        firstlight.phase_diagram("tanh", w, b)


def test_the_command_prints_and_draws(tmp_path):
    target = tmp_path / "tanh.png"
    base = ["phase", "tanh", "--sigma-w", "0.8:2.4:3", "--sigma-b", "0:0.5:2"]
    done = CliRunner().invoke(app, [*base, "--figure", str(target)])
    assert done.exit_code == 0, done.output
    assert "chaotic" in done.output
    assert "ordered" in done.output
    assert target.stat().st_size > 5000
    record = json.loads(CliRunner().invoke(app, [*base, "-f", "json"]).output)
    assert np.shape(record["chi"]) == (2, 3)
