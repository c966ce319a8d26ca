"""Checks on the data: INP."""

from __future__ import annotations

from collections.abc import Iterator

from firstlight.checks.blame import blame
from firstlight.checks.evidence import Evidence, InputFacts
from firstlight.checks.fate import NOISE, decide
from firstlight.checks.mainline import SATURATING
from firstlight.checks.phrases import number, severity
from firstlight.checks.registry import check
from firstlight.graph.results import Finding, NodeStats

_NORMALISING = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")


@check("INP003", stage=1)
def samples_alike(e: Evidence) -> Iterator[Finding]:
    """All samples of the batch are the same.

    What it measures:
        Root mean square of the inputs' deviation from the batch mean, relative to their size.
    Why it matters:
        The loss can then fall only to that of the best constant answer: there is nothing to tell apart.
    When it is harmless:
        For a batch of one sample (not judged), or if another input differs between samples.
    Remedy:
        Look at the loader: `print(batch[0], batch[1])`.
    Source:
        Data-processing inequality; the threshold is the format's roundoff.
    """
    if e.measurement.batch_size < 2:
        return
    floating = [x for x in e.inputs if x.shape and x.shape[0] == e.measurement.batch_size]
    if not floating or any(x.spread > NOISE * e.eps * max(x.rms, 1e-300) for x in floating):
        return
    for x in floating:
        what = "zero everywhere" if x.rms == 0.0 else "the same in every sample"
        yield Finding(
            "INP003", "error", x.name, f"input {x.name!r} is {what}", "some difference between samples",
            "Every sample looks the same to the network, so it can only learn one constant answer.",
            "print(batch[0], batch[1])  # look at what the loader returns",
        )  # fmt: skip


@check("INP005", stage=4)
def samples_mixed(e: Evidence) -> Iterator[Finding]:
    """One sample's answer depends on the other samples of the batch.

    What it measures:
        How far the outputs of the others change where one sample is replaced by a copy of another, in evaluation mode
        (batch norms use what they have stored); and whether a recurrent or attention module with `batch_first=False`
        takes the axis of the samples for time.
    Why it matters:
        A recurrent layer made without `batch_first=True`, a `view` that runs over the samples' axis, a mean over the
        wrong axis: the network then reads other samples where it should read its own, which nothing in training tells.
    When it is harmless:
        Where the first axis holds no samples (nodes of a graph, positions of one sequence), and where samples are
        compared on purpose (contrastive outputs, statistics of the batch by hand). It is a warning only where a module
        with `batch_first=False` does it and there is one row of outputs a sample.
    Remedy:
        `batch_first=True`; `transpose` or `permute` in place of `view` where axes are to be exchanged.
    Source:
        PyTorch's notes on nn.LSTM and nn.MultiheadAttention: inputs are (time, batch, features) by default.
    """
    m = e.mixing
    if m is None or not m.change > NOISE * e.eps or (m.time_first and not m.flat) or e.measurement.batch_size < 2:
        return
    axis = "which takes the samples' axis for time" if m.time_first else ""
    fix = "for m in [m for m in model.modules() if hasattr(m, 'batch_first')]: m.batch_first = True"
    yield Finding(
        "INP005", "warning" if m.time_first else "info", m.time_first,
        f"exchanging one sample changes the others' outputs by {number(m.change)} of their size"
        + (f"; {m.time_first} has batch_first=False, {axis}" if axis else ""),
        f"{number(NOISE * e.eps)} (rounding errors)",
        "The samples' axis is taken for time, and time for the samples': samples read each other." if m.time_first
        else "One sample's answer depends on the other samples of the batch.",
        fix if m.time_first else "", evidence={"change": m.change},
    )  # fmt: skip


@check("INP002", stage=2)
def not_normalised(e: Evidence) -> Iterator[Finding]:
    """An input is far from mean 0 and size 1.

    What it measures:
        Root mean square of each floating-point input, and its mean relative to its standard deviation.
    Why it matters:
        Every initialization law assumes inputs of mean square about 1: lengths are proportional to the input's, so raw
        pixels (0 to 255) multiply the outputs and the first layer's gradient by about 150, saturate tanh and sigmoid,
        and a large common offset drowns the differences between samples.
    When it is harmless:
        If the first operation normalises (BatchNorm, LayerNorm), or divides by 255.
    Remedy:
        `batch = (batch - batch.mean()) / batch.std()`, with the training set's mean and standard deviation.
    Source:
        LeCun et al., Efficient BackProp (1998), §4.3; the factor of 10 in root mean square is where a length is off by
        more than the factor that Hanin & Rolnick (1803.01719) call a failure, squared.
    """
    fate = decide(e)
    for x in e.inputs:
        if not x.floating or x.rms == 0.0 or x.non_finite or x.shape[:1] != (e.measurement.batch_size,):
            continue
        offset = abs(x.mean) > 10.0 * x.sd
        if 0.1 <= x.rms <= 10.0 and not offset:
            continue
        if normalised_first(e, x):
            continue
        fatal = fate.reason in ("exploded", "half") or blame(e).kind in (
            "saturated",
            "offset",
            "dead",
            "input",
        )
        fatal = (fatal and (x.rms > 10.0 or offset)) or (fate.reason in ("silent", "budget", "weak") and x.rms < 0.1)
        kind = (
            "looks like raw pixels or other raw measurements"
            if x.rms > 10.0
            else ("is nearly zero" if x.rms < 0.1 else "lies far from zero")
        )
        yield Finding(
            "INP002", severity(fatal), x.name,
            f"input {x.name!r} has mean {number(x.mean)}, standard deviation {number(x.sd)}, "
            f"range {number(x.low)} to {number(x.high)}",
            "root mean square between 0.1 and 10, mean within 10 standard deviations (laws assume mean square 1)",
            f"The input {kind}; lengths, outputs and the first layer's gradient are off by that factor.",
            "batch = (batch - batch.mean()) / batch.std()  # with the training set's numbers",
            f"divides every pre-activation by about {number(x.rms)}" if x.rms > 10.0 else "",
            {"rms": x.rms, "mean": x.mean, "sd": x.sd},
        )  # fmt: skip


@check("INP004", stage=3)
def features_uneven(e: Evidence) -> Iterator[Finding]:
    """Features of one input have very different sizes.

    What it measures:
        Largest over median root mean square of the features of a table.
    Why it matters:
        The largest feature alone decides every pre-activation; the others are learned slower by the ratio squared.
    When it is harmless:
        If the first operation normalises each feature (BatchNorm), or for sparse indicator features.
    Remedy:
        Standardise each feature: `batch = (batch - batch.mean(0)) / batch.std(0)`.
    Source:
        LeCun et al., Efficient BackProp (1998), §4.3: convergence follows the ratio of the covariance's eigenvalues;
        30 in size is 1000 in eigenvalue.
    """
    for x in e.inputs:
        if x.floating and x.feature_scale_ratio > 30.0 and not normalised_first(e, x):
            fatal = blame(e).kind in ("saturated", "dead")
            yield Finding(
                "INP004", severity(fatal), x.name,
                f"the largest feature of {x.name!r} is {number(x.feature_scale_ratio)} times the median one",
                "30 (a covariance condition of about 1000)",
                "One feature decides everything; the network hardly sees the others.",
                "batch = (batch - batch.mean(0)) / batch.std(0)",
                evidence={"ratio": x.feature_scale_ratio},
            )  # fmt: skip


def first_reader(e: Evidence) -> NodeStats | None:
    """The first operation with parameters or normalisation after the inputs."""
    return next((n for n in e.nodes if n.parameters or n.op in _NORMALISING), None)


def first_saturating(e: Evidence) -> NodeStats | None:
    """The first non-linearity, if it saturates."""
    for n in e.nodes:
        if n.op in SATURATING:
            return n
        if n.op in ("relu", "gelu", "silu", "elu", "leaky_relu", "selu", "mish", "softplus"):
            return None
    return None


def normalised_first(e: Evidence, x: InputFacts) -> bool:
    """Whether the network brings this input to an ordinary size before anything saturates or is learned."""
    reader = first_reader(e)
    if reader is None:
        return False
    if reader.op in _NORMALISING:
        return True
    if reader.op == "embedding":
        return True
    names = [n.name for n in e.nodes]
    at = names.index(reader.name)
    fed = [n for n in e.nodes[:at] if n.name in reader.inputs]
    return bool(fed) and all(n.op != "input" and 0.1 <= n.output.rms <= 10.0 for n in fed)
