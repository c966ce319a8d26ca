"""The records of a measurement: JSON there and back, table for pandas, print at every width."""

import io
import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from firstlight.errors import DataError, InputError
from firstlight.graph.measurement import Distribution, Measurement, NodeStats, ParameterStats, TensorStats
from firstlight.graph.terminal import number, share


def stats(q: float = 1.0, **changes: object) -> TensorStats:
    s = TensorStats((32, 64), "float32", 0.01, q, 3.0, 0.5, 64, 3, None, 0.25, 0, 0, dead_index=(1, 2, 5))
    return replace(s, **changes)  # pyright: ignore[reportArgumentType]


def measurement(nodes: int = 4) -> Measurement:
    made = [
        NodeStats(f"layers.{i}:relu", "relu", f"layers.{i}", "ReLU", "net.py:3", stats(2.0**-i), stats(), inputs=("a",))
        for i in range(nodes)
    ]
    made[1] = replace(made[1], output=stats(math.nan, nan_count=4, abs_max=math.inf, cosine=None), grad=None)
    made[2] = replace(made[2], log_q=Distribution((0.5, -math.inf), (0.0, 0.0)), parameters=("w", "b"))
    parameter = ParameterStats("w", (3, 4), "float32", "Linear", True, 0.0, 0.5, None, 0.0, 0, 0, 0, aliases=("v",))
    return Measurement(
        "Net", tuple(made), (parameter, replace(parameter, name="b", grad_q=math.inf)), math.nan, "random cotangent",
        True, 32, notes=("a note",), outputs=("layers.3:relu",),
    )  # fmt: skip


def test_json_there_and_back() -> None:
    m = measurement()
    text = m.to_json()
    assert repr(Measurement.from_json(text)) == repr(m)  # repr: nan is not equal to itself
    assert repr(Measurement.from_json(m.to_json(indent=2))) == repr(m)
    strict = json.loads(text, parse_constant=lambda token: pytest.fail(f"{token} is not JSON"))
    assert strict["loss"] == "nan"
    assert strict["record"] == "Measurement"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"record": "Report"}', '{"record": "Measurement"}', '{"record": "Measurement", "model": 3}'],
)
def test_what_is_no_measurement_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="from_json"):
        Measurement.from_json(text)


def test_damaged_values_are_refused() -> None:
    data = json.loads(measurement().to_json())
    data["nodes"][0]["output"]["q"] = "many"
    with pytest.raises(DataError):
        Measurement.from_json(json.dumps(data))
    data = json.loads(measurement().to_json())
    data["batch_size"] = "32"
    with pytest.raises(DataError):
        Measurement.from_json(json.dumps(data))


def test_frame() -> None:
    pytest.importorskip("pandas")
    frame = measurement().to_frame()
    assert list(frame["name"]) == [f"layers.{i}:relu" for i in range(4)]
    assert frame["q"][3] == 0.125
    assert math.isnan(frame["grad_q"][1])
    assert frame["log_q_p_off"][2] == 0.5
    parameters = measurement().to_frame("parameters")
    assert list(parameters["name"]) == ["w", "b"]
    assert list(parameters["received_grad"]) == [False, True]
    with pytest.raises(InputError, match="'nodes' or 'parameters'"):
        measurement().to_frame("graph")  # pyright: ignore[reportArgumentType]


def test_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install 'firstlight"):
        measurement().to_frame()


def printed(m: Measurement, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(m)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("nodes", [4, 400])
def test_print_fits(width: int, nodes: int) -> None:
    lines = printed(measurement(nodes), width)
    assert max(map(len, lines)) <= width
    assert len(lines) < 80
    text = "\n".join(lines)
    assert "layers.0:relu" in text
    assert f"layers.{nodes - 1}:relu" in text
    assert "4 NaN" in text
    assert "tied" in text
    assert "note: a note" in text
    assert ("…" in text) == (nodes > 100)


def test_plain_text_and_lookup() -> None:
    m = measurement()
    assert "Net: 4 operations" in str(m)
    assert m["layers.2:relu"].parameters == ("w", "b")
    with pytest.raises(KeyError):
        m["layers.9:relu"]


def test_short_numbers() -> None:
    shown = {
        0.0: "0",
        1.0: "1",
        -0.001: "-0.001",
        0.51234: "0.512",
        1234.5: "1234",
        12345.0: "1.2e4",
        3.2e-31: "3.2e-31",
    }
    assert {x: number(x) for x in shown} == shown
    assert number(None) == "–"
    assert number(math.inf) == "inf"
    assert [share(x) for x in (None, 0.0, 0.001, 0.5, 0.999, 1.0)] == ["–", "0", "<1", "50", ">99", "100"]


def test_the_records_need_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import firstlight; print(firstlight.Measurement.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Measurement"
