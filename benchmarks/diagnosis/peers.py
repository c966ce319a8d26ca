"""Other diagnosers on the same networks: run by their own interpreter, one JSON line per network on stdout.

``python -m benchmarks.diagnosis.peers NAME SET`` with a Python that has the peer (benchmarks/requirements.txt).
None of them takes an optimizer step here: their overfitting probes are switched off, as ours has none.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import asdict

import torch

from benchmarks.diagnosis.nets import Case
from benchmarks.diagnosis.score import Answer, labelled, run
from benchmarks.diagnosis.tasks import BATCH, loss_of


def _parts(case: Case):
    loss = loss_of(case.loss)
    return case.model, case.x[:BATCH], case.task.y[:BATCH], lambda out, y: loss(out.float(), y)


def torchtest2(case: Case) -> Answer:
    """Any failed check; its 200 training steps skipped."""
    import torchtest2 as peer  # pyright: ignore[reportMissingImports] - on demand

    model, x, y, loss = _parts(case)
    report = peer.check_model(model, x, y, loss_fn=loss, skip=["overfit_batch"])
    return Answer(not report.ok, tuple(c.name for c in report.failures))


def torchlens(case: Case) -> Answer:
    """Any finding of the audit of a full capture, forward and backward."""
    import torchlens as peer  # pyright: ignore[reportMissingImports] - on demand
    from torchlens.options import CaptureOptions  # pyright: ignore[reportMissingImports] - on demand

    model, x, y, loss = _parts(case)
    trace = peer.trace(model, x, capture=CaptureOptions(save_grads=True))
    trace.log_backward(loss(trace[trace.output_layers[0]].out, y))
    found = [f for f in trace.audit().findings if f.severity != "info"]
    return Answer(bool(found), tuple(f.check for f in found))


def _torch_audit(case: Case, levels: set[str]) -> Answer:
    import torch_audit as peer  # pyright: ignore[reportMissingImports] - on demand

    model, x, y, loss = _parts(case)
    trained = [p for p in model.parameters() if p.requires_grad]
    auditor = peer.Auditor(model, optimizer=torch.optim.Adam(trained, 1e-3) if trained else None, every_n_steps=1)
    with auditor:
        auditor.audit_static()
        auditor.audit_init()
        auditor.backward(loss(auditor.forward(x), y))
    found = [
        f
        for f in auditor.finish(report=False).findings
        if f.severity.value in levels and f.rule_id not in {"TA200", "TA203"}
    ]
    return Answer(bool(found), tuple(f.rule_id for f in found))


def torch_audit(case: Case) -> Answer:
    """Findings at WARN or ERROR; its advice on layouts and sizes (TA200, TA203) left out."""
    return _torch_audit(case, {"WARN", "ERROR", "FATAL"})


def torch_audit_errors(case: Case) -> Answer:
    """Findings at ERROR."""
    return _torch_audit(case, {"ERROR", "FATAL"})


def syndset(case: Case) -> Answer:
    """Status "failed"; its overfitting probe switched off."""
    import syndset as peer  # pyright: ignore[reportMissingImports] - on demand

    report = peer.audit(*_parts(case), run_overfit=False)
    return Answer(report.overall_status == "failed", tuple(c["name"] for c in report.checks if c["tag"] == "FAIL"))


def syndset_warnings(case: Case) -> Answer:
    """Status "failed" or "warning"."""
    import syndset as peer  # pyright: ignore[reportMissingImports] - on demand

    report = peer.audit(*_parts(case), run_overfit=False)
    return Answer(report.overall_status != "passed", tuple(c["name"] for c in report.checks if c["tag"] != "PASS"))


PEERS: dict[str, Callable[[Case], Answer]] = {
    "torchtest2": torchtest2,
    "torchlens": torchlens,
    "torch_audit": torch_audit,
    "torch_audit_errors": torch_audit_errors,
    "syndset": syndset,
    "syndset_warnings": syndset_warnings,
}


def guarded(diagnose: Callable[[Case], Answer]) -> Callable[[Case], Answer]:
    """A peer that raises has noticed something: count it as broken, in its favour where the network is."""

    def ask(case: Case) -> Answer:
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                return diagnose(case)
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its answer
            return Answer(True, (f"raised {type(error).__name__}",))

    return ask


def main() -> None:
    """Answer for every network of a set."""
    name, labels = sys.argv[1:]
    for answer in run(guarded(PEERS[name]), list(labelled(labels))):
        print(json.dumps(asdict(answer)))


if __name__ == "__main__":
    main()
