"""Every kind of bad input gets one clear error, exit code 2, and nothing written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_tools import call, refused, shell

from firstlight import api


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["{nets}", "-i", "4,16"], ["a module and a name in it, with a colon between"]),
        (["absent.py:build", "-i", "4,16"], ["file 'absent.py'", "no such file"]),
        (
            ["no_such_package.nets:build", "-i", "4,16"],
            ["no module named 'no_such_package'", "→ Check the spelling"],
        ),
        (["{nets}:god", "-i", "4,16"], ["no 'god' in", "Did you mean 'good'?"]),
        (["{nets}:number", "-i", "4,16"], ["type int", "expected a torch.nn.Module"]),
        (
            ["{nets}:own_loss", "-i", "4,16"],
            ["factory", "TypeError", "missing 1 required positional argument"],
        ),
        (["{nets}:fails", "-i", "4,16"], ["ValueError at nets.py:18: no such thing", "--debug"]),
        (["{nets}:leaves", "-i", "4,16"], ["SystemExit at nets.py"]),
        (["{nets}:fails", "--arg", "message=[red]hi\x1b[31m", "-i", "4"], ["[red]hi\\x1b[31m"]),
        (["{nets}:good", "--arg", "width", "-i", "4,16"], ["KEY=VALUE"]),
        (["{nets}:module", "--arg", "width=3", "-i", "4,16"], ["expected a factory, which takes arguments"]),
        (["{nets}:good"], ["neither --input nor --batch"]),
        (["{nets}:good", "-i", "4,16", "--batch", "x.pt"], ["both --input and --batch"]),
        (["{nets}:good", "-i", "4x16"], ["got '4x16'", "32,1,28,28"]),
        (["{nets}:good", "-i", "0,16"], ["sizes of at least 1"]),
        (["{nets}:good", "-i", "99999999,99999999"], ["at most 2³¹ entries"]),
        (["{nets}:good", "-i", "4,16:float99"], ["sizes, then :dtype"]),
        (["{nets}:good", "-i", "4,17"], ["cannot be multiplied", "Check the batch's shape"]),
        (["{nets}:good", "-i", "4,16", "--loss", "hinge"], ["cross-entropy, nll, mse, bce or MODULE:FUNCTION"]),
        (["{nets}:Nan", "-i", "4,16"], ["the forward pass fails"]),
        (["{nets}:good", "-i", "4,16", "--device", "gpu"], ["error --device", "got 'gpu'", "expected cpu"]),
        (["{nets}:good", "--batch", "absent.pt"], ["absent.pt", "no such file"]),
        (["{nets}:good", "-i", "4,16", "--out", "."], ["a folder", "the path of a file"]),
    ],
)
def test_bad_input_is_one_clear_error(nets: str, arguments: list[str], texts: list[str]) -> None:
    refused(call("diagnose", *(argument.format(nets=nets) for argument in arguments)), *texts)


class _Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch /tmp/firstlight-was-here",)


def test_bad_batches_are_one_clear_error(nets: str, tmp_path: Path) -> None:
    x, y = torch.randn(8, 16), torch.arange(8)
    contents: dict[str, tuple[object, str]] = {
        "labels.pt": ((x, y), "labels from 0 to 7 expected 0 to 3: the output has 4 classes"),
        "empty.pt": ((torch.zeros(0, 16), y[:0]), "an empty tensor of shape (0, 16)"),
        "nan.pt": ((torch.full((8, 16), float("nan")), y % 4), "128 NaN and 0 infinite entries"),
        "few.pt": ((x, y[:3] % 4), "a tensor of shape (3,) expected (8,)"),
        "text.pt": ("words", "expected"),
        "hostile.pt": (_Hostile(), "Python objects other than tensors"),
    }
    for name, (content, text) in contents.items():
        torch.save(content, tmp_path / name)
        refused(call("diagnose", f"{nets}:good", "--batch", tmp_path / name, "--loss", "cross-entropy"), text)
    assert not Path("/tmp/firstlight-was-here").exists()
    for name in ("empty.pt", "nan.pt"):  # without a loss, too, and before anything is said of their labels
        result = call("diagnose", f"{nets}:good", "--batch", tmp_path / name)
        refused(result, contents[name][1])
        assert "differentiated" not in result.stderr

    torch.save((x, y % 4), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "whole.npz", x=x.numpy())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-60])
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    (tmp_path / "zero.pt").write_bytes(b"")
    (tmp_path / "batch.csv").write_text("1,2")
    for name, text in (
        ("cut.pt", "cut.pt"),
        ("cut.npz", "no .npz archive"),
        ("objects.npz", "cannot be read"),
        ("zero.pt", "zero.pt"),
        ("batch.csv", "the suffix '.csv' expected .pt, .pth or .npz"),
    ):
        refused(call("diagnose", f"{nets}:good", "--batch", tmp_path / name), text)


def test_nothing_is_written_on_an_error(nets: str, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("before")
    for arguments in (
        ("diagnose", f"{nets}:Nan", "-i", "4,16", "-f", "html", "--out", out),
        ("init", f"{nets}:good", "--scheme", "hee", "--out", out),
        ("measure", f"{nets}:good", "-i", "4,16", "-f", "html", "--out", out),
    ):
        refused(call(*arguments))
        assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_an_error_of_our_own_says_so(nets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(api, "diagnose", broken)
    result = call("diagnose", f"{nets}:good", "-i", "4,16")
    assert result.exit_code == 3
    assert "This is an error in firstlight" in result.stderr
    assert isinstance(call("diagnose", f"{nets}:good", "-i", "4,16", "--debug").exception, ZeroDivisionError)


def test_a_real_process(nets: str, tmp_path: Path) -> None:
    done = shell("diagnose", "nets:good", "-i", "8,16", "-f", "json", cwd=Path(nets).parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"]
    assert "the module prints while it is imported" in done.stderr
    done = shell("diagnose", f"{nets}:fails", "-i", "8,16", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such thing" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_offered_is_in_the_file_and_not_what_it_imports(nets: str) -> None:
    result = call("diagnose", f"{nets}:god", "-i", "4,16")
    refused(result, "Did you mean 'good'?")
    offered = result.stderr.partition("one of ")[2].split("Did")[0]
    assert "good" in offered
    assert "torch" not in offered


def test_a_factory_that_reads_weights_is_told_to_do_without_meta(tmp_path: Path) -> None:
    lines = [
        "from torch import nn",
        "def build():",
        "    m = nn.Linear(16, 4)",
        "    m.weight.norm().item()",
        "    return m",
    ]
    (tmp_path / "nets.py").write_text("\n".join(lines))
    spec = f"{tmp_path}/nets.py:build"
    result = call("predict", spec, "-i", "4,16", "--meta", "--scheme", "he")
    refused(result, "RuntimeError at nets.py:4", "Leave --meta out")
