"""Every verb on one network, in a process of its own under a limit of time and memory."""

from __future__ import annotations

import math
import multiprocessing
import re
import resource
import time
import traceback
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

import firstlight as fl
from benchmarks.breadth.candidate import IDS, Candidate
from firstlight.capture.tensors import named_tensors
from firstlight.capture.trace import trace
from firstlight.errors import FirstlightError, MissingRuleError
from firstlight.propagate.forward import missing

MEMORY = 3 << 30
SECONDS = 120  # of CPU
WAIT = 900  # of the clock: the machine may be busy with other things
DRAWS = 16
NEAR = 0.2  # an operation counts as met within this, or within three standard errors
Z = 3.0
STEPS = 60  # of Adam, where the verdict says that the network will not start
RATES = (1e-3, 1e-4)


@dataclass
class Result:
    """One line of the table.

    Attributes:
        name: Of the candidate.
        source: Its package.
        parameters: Number of weights.
        operations: Nodes of the graph.
        failed: The first verb that raised, or "".
        error: What it said.
        missing: Operations without a rule (then sampled).
        real_run: Whether shapes alone did not determine the pass.
        forward: Share of the operations whose mean square is met.
        backward: Share of those whose gradient is.
        first_miss: The first operation that is not met, with predicted/measured.
        unexplained: Operations that are off and carry no caveat, nor any before them.
        verdict: Of `diagnose`.
        findings: Codes of findings at or above warning, worst first.
        loss_fell: Smallest share of the first loss that a few steps reached; only where the verdict is not "starts".
        seconds: CPU seconds of all verbs together.
    """

    name: str
    source: str
    parameters: int = 0
    operations: int = 0
    failed: str = ""
    error: str = ""
    missing: str = ""
    real_run: bool = False
    forward: float = math.nan
    backward: float = math.nan
    first_miss: str = ""
    unexplained: int = 0
    verdict: str = ""
    findings: str = ""
    loss_fell: float = math.nan
    seconds: float = 0.0
    detail: str = field(default="", repr=False)


def objective(output: Any) -> torch.Tensor:
    """Cross entropy where the last axis is the vocabulary, else the distance from fixed random numbers."""
    found = [t for _, t in named_tensors(output) if t.is_floating_point()]
    y = next((t for t in found if t.numel() > 1), found[0])
    if y.numel() == 1:  # the model computes its own loss
        return y.sum()
    generator = torch.Generator().manual_seed(7)
    if y.dim() >= 2 and y.shape[-1] == IDS:
        labels = torch.randint(IDS, (y.numel() // IDS,), generator=generator)
        return nn.functional.cross_entropy(y.reshape(-1, IDS).float(), labels)
    return (y.float() - torch.randn(y.shape, generator=generator)).square().mean()


class Trial:
    """The verbs one after the other; the first that raises is noted, the others are tried all the same."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.row = Result(candidate.name, candidate.source)

    def step(self, verb: str, action: Callable[[], Any]) -> Any:
        """The result of one verb, or None if it raised."""
        try:
            return action()
        except Exception as error:  # noqa: BLE001 - whatever a verb raises is a line of the table
            if not self.row.failed:
                self.row.failed = verb
                text = " ".join(str(error).split())
                kind = type(error).__name__
                self.row.error = (text if isinstance(error, FirstlightError) else f"{kind}: {text}")[:160]
            self.row.detail += f"--- {verb}\n{traceback.format_exc()}\n"
            return None

    def run(self) -> Result:
        """All verbs."""
        begin = time.process_time()
        made = self.step("build", self.candidate.make)
        if made is None:
            return self.row
        model, args, kwargs = made
        batch = (args, kwargs)
        self.row.parameters = sum(p.numel() for p in model.parameters())
        if self.step("its own forward", lambda: deepcopy(model)(*args, **kwargs)) is None:
            return self.row
        state = {k: v.clone() for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
        begin = time.process_time()
        graph = self.step("trace", lambda: trace(model, args, kwargs))
        if graph is not None:
            self.row.operations = len(graph.nodes)
            self.row.real_run = any("real run" in n for n in graph.notes)
            self.row.missing = " ".join(sorted({n.op for n in missing(graph)}))
        prediction = self.step("predict", lambda: self.predicted(model, batch))
        self.step("predict on meta", lambda: self.on_meta(args, kwargs))
        measurement = self.step("measure", lambda: fl.measure(model, batch, draws=DRAWS))
        if prediction is not None and measurement is not None:
            self.step("compare", lambda: self.compared(prediction, measurement))
        report = self.step("diagnose", lambda: fl.diagnose(model, batch, loss=objective))
        if report is not None:
            self.row.verdict = report.verdict
            self.row.findings = " ".join(dict.fromkeys(f.code for f in report.findings if f.severity != "info"))
            self.row.detail += "".join(
                f"{f.code} {f.severity} {f.where}: {f.measured} | {f.threshold} | {f.meaning}\n"
                for f in report.findings
            )
        self.step("initialize", lambda: self.initialized(model, batch))
        self.step("leave the model alone", lambda: self.unchanged(model, state))
        self.row.seconds = time.process_time() - begin
        if report is not None and report.verdict != "starts":
            self.row.loss_fell = self.step("train", lambda: max_fall(self.candidate)) or math.nan
        return self.row

    def predicted(self, model: nn.Module, batch: Any) -> Any:
        """The prediction under the live weights' law; what has no rule is sampled."""
        try:
            return fl.predict(model, batch)
        except MissingRuleError as error:
            self.row.detail += f"{error}\n"
            return fl.predict(model, batch, on_missing="measure")

    def on_meta(self, args: Any, kwargs: Any) -> None:
        """The prediction for a scheme with the weights on the meta device."""
        model = self.candidate.make()[0].to("meta")
        fl.predict(model, (args, kwargs), "he", on_missing="measure")

    def compared(self, prediction: Any, measurement: Any) -> None:
        """The shares of operations that are met."""
        forward: list[bool] = []
        backward: list[bool] = []
        warned = False
        for n in fl.compare(prediction, measurement).nodes:
            warned = warned or bool(n.caveats)
            near = met(n.q_predicted, n.q_measured, n.q_z)
            forward.append(near)
            if n.grad_q_predicted is not None and n.grad_q_measured is not None:
                backward.append(met(n.grad_q_predicted, n.grad_q_measured, n.grad_q_z))
            if not near:
                if not self.row.first_miss:
                    self.row.first_miss = f"{n.node} {n.q_predicted:.3g}/{n.q_measured:.3g}"
                self.row.unexplained += not warned
            if not near or (backward and n.grad_q_predicted is not None and not backward[-1]):
                self.row.detail += (
                    f"{n.node:60s} q {n.q_predicted:.4g}/{n.q_measured:.4g} z {n.q_z:.1f}  "
                    f"grad {n.grad_q_predicted}/{n.grad_q_measured} z {n.grad_q_z} {'; '.join(n.caveats)[:150]}\n"
                )
        self.row.forward = sum(forward) / max(len(forward), 1)
        self.row.backward = sum(backward) / max(len(backward), 1)

    def initialized(self, model: nn.Module, batch: Any) -> None:
        """He's weights, a pass, and back."""
        done = fl.initialize(model, "he", batch=batch)
        try:
            for name, p in model.named_parameters():
                if not bool(p.detach().isfinite().all()):
                    raise ValueError(f"{name} is not finite after initialize")
        finally:
            done.undo()

    def unchanged(self, model: nn.Module, state: dict[str, torch.Tensor]) -> None:
        """Raise if any entry of the model differs from what it was."""
        now = model.state_dict()
        for name, value in state.items():
            if not torch.equal(torch.nan_to_num(now[name]), torch.nan_to_num(value)):
                raise ValueError(f"{name} changed")


def met(predicted: float, measured: float, z: float | None) -> bool:
    """Whether a predicted mean square is near the measured one, or within its error bar."""
    if not (math.isfinite(predicted) and math.isfinite(measured)):
        return False
    if abs(predicted - measured) <= NEAR * max(abs(measured), 1e-30):
        return True
    return z is not None and abs(z) <= Z


def max_fall(candidate: Candidate) -> float:
    """Smallest loss over a few steps of Adam, as a share of the first one, at the best of two rates."""
    best = 1.0
    for rate in RATES:
        model, args, kwargs = candidate.make()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
        first = math.nan
        for _ in range(STEPS):
            loss = objective(model(*args, **kwargs))
            value = float(loss.detach())
            first = value if math.isnan(first) else first
            if not math.isfinite(value):
                break
            best = min(best, value / first)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return best


def _child(candidate: Candidate, tell: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tell.send(asdict(Trial(candidate).run()))


def apart(candidate: Candidate) -> Result:
    """One candidate in a forked process."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=_child, args=(candidate, theirs))
    worker.start()
    theirs.close()
    try:
        if ours.poll(WAIT):
            return Result(**ours.recv())
        return Result(candidate.name, candidate.source, failed="time", error=f"more than {SECONDS} s")
    except EOFError:
        worker.join()
        return Result(candidate.name, candidate.source, failed="process", error=f"ended with {worker.exitcode}")
    finally:
        worker.kill()
        worker.join()


def plain(text: str) -> str:
    """An error in one line without the addresses of this machine."""
    return re.sub(r"\s+", " ", re.sub(r"/\S*/", "", text))
