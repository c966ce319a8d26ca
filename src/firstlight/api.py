"""The verbs: orchestration only; the work is done on the floors below."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from firstlight.errors import InputError
from firstlight.theory import activations, random_walk

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from firstlight.checks.evidence import Evidence, Probe
    from firstlight.graph.measurement import Measurement
    from firstlight.graph.prediction import Comparison, Prediction
    from firstlight.graph.results import Report
    from firstlight.schemes.apply import Initialization


def gain(
    activation: str | activations.Activation,
    fan: int | None = None,
    keep: str = "median",
    law: str = "exact",
    q: float = 1.0,
    **parameters: activations.Parameter,
) -> float:
    """The gain g of weights with variance g²/fan_in that keeps a signal's length from layer to layer.

    | keep | law | g |
    | --- | --- | --- |
    | "median" | "exact" | exp(-½ E ln z), exact at this fan: the log-norm has no drift (given a living layer) |
    | "median" | "paper" | the published fits, for linear and relu only |
    | "mean" | "exact" | √(q/Eφ(√q z)²), at any fan: the mean square has no drift (relu: He's √2) |

    Keeping the median lets the mean grow, keeping the mean lets the median fall; see the page on mean and median.
    For φ of degree 1 (linear, relu, leaky_relu, prelu, abs) g does not depend on q. For all others it holds at
    pre-activations of mean square q.

    Args:
        activation: Name ("relu", "gelu-tanh", …), alias or record.
        fan: Number of units of the layer (fan_in of the next); needed for keep="median".
        keep: "median" or "mean".
        law: "exact" or "paper".
        q: Mean square of the pre-activations at which a gain of a φ that is not of degree 1 holds.
        **parameters: Constructor parameters of the nonlinearity, for example ``negative_slope=0.2``.

    Returns:
        g.

    Raises:
        InputError: Unusable arguments, or a combination for which there is no published fit.
        RegistryError: Unknown activation.

    Example:
        >>> round(gain("relu", fan=64), 4), round(gain("relu", keep="mean"), 4)
        (1.4429, 1.4142)

    References:
        sussillo2014, he2015
    """
    act = activations.get(activation, **parameters)
    for name, value, known in (("keep", keep, ("median", "mean")), ("law", law, ("exact", "paper"))):
        if value not in known:
            raise InputError(f"gain, {name}", got=repr(value), expected=" or ".join(map(repr, known)))
    if keep == "mean":
        if law == "paper":
            raise InputError(
                "gain",
                got="keep='mean' with law='paper'",
                expected="keep='median' (linear, relu), the only gains for which the paper gives a fit",
                action="Use law='exact': the mean-keeping gain is exact at every fan.",
            )
        return random_walk.mean_gain(act, q)
    if fan is None:
        raise InputError(
            "gain, fan",
            got="None",
            expected="the number of units of the layer",
            action="Pass fan=64, or keep='mean', which holds at any fan.",
        )
    return random_walk.paper_gain(act, fan) if law == "paper" else random_walk.median_gain(act, fan, q)


def measure(
    model: nn.Module,
    batch: Any,
    *,
    loss: Callable[..., Tensor] | None = None,
    draws: int = 1,
    scheme: Any = None,
    get_inputs: Callable[[Any], Any] | None = None,
    seed: int = 0,
    backward: bool = True,
) -> Measurement:
    """Run the model once forward and once backward on real data and return the statistics of all that passed.

    Per operation, in execution order: mean, mean square q, largest entry, zeros, dead units, saturation, cosine
    between samples, NaN and Inf, margins of half precision; the same for ∂loss/∂output; per parameter its entries,
    gradient and symmetry. The module comes back bit for bit: parameters, buffers, gradients, mode, hooks, and the
    process' random number generators too, also when the model raises.

    Args:
        model: Any module whose weights hold numbers; in the mode (train, eval) in which it is to be looked at.
        batch: A tensor, a tuple of positional arguments, a mapping of keyword arguments, or ``(args, kwargs)``.
        loss: Called with the model's output, or with the output and `batch` if it takes two arguments; returns a
            scalar. By default the loss is Σ v·y over all floating-point outputs y with a fixed random cotangent v
            of mean square 1 for each output tensor, so that ∂loss/∂y has q = 1.
        draws: Number K of re-draws of the weights. For K > 1 (or with a scheme) each operation carries the
            distribution of ln q over the draws, forward and backward; all else is of the live weights.
        scheme: Law of the re-draws, as in `initialize`; by default each parameter's own empirical law.
        get_inputs: Turns `batch` into one of the forms above.
        seed: Of the random cotangent, the re-draws, and of what the model itself draws (dropout).
        backward: False to leave out the backward pass.

    Returns:
        The measurement; print it, or use `to_frame()` and `to_json()`.

    Raises:
        InputError: If an argument cannot be used as given.
        ModelError: If the model, the loss or the backward pass raises.
    """
    from firstlight.capture import measure as capture

    redraw, law = None, "empirical law of each parameter"
    if scheme is not None:
        redraw, law = _redraw(model, scheme, batch, get_inputs), str(getattr(scheme, "__name__", scheme))
    return capture.measure(
        model,
        batch,
        loss=loss,
        draws=draws,
        redraw=redraw,
        law=law,
        get_inputs=get_inputs,
        seed=seed,
        backward=backward,
    )


def _redraw(
    model: nn.Module, scheme: Any, batch: Any, get_inputs: Callable[[Any], Any] | None
) -> Callable[[nn.Module, int], None]:
    """A function that overwrites the model's weights with a draw from the scheme, planned once on its graph."""
    from firstlight.capture.inputs import check_batch, check_model
    from firstlight.capture.trace import trace
    from firstlight.schemes import apply

    inputs = check_batch(batch, check_model(model), get_inputs=get_inputs)
    chosen = apply.plan(model, scheme, graph=trace(model, inputs.args, inputs.kwargs))

    def redraw(_model: nn.Module, seed: int) -> None:
        apply.write(chosen, seed)

    return redraw


def predict(
    model: nn.Module | Callable[..., nn.Module],
    inputs: Any,
    scheme: Any = None,
    *,
    on_missing: Literal["raise", "measure"] = "measure",
    dtype: Any = None,
    backward: bool = True,
    get_inputs: Callable[[Any], Any] | None = None,
) -> Prediction:
    """Say, without running the model, what its signals and gradients will be under the law of its weights.

    Per operation, forward and backward: mean, mean square, correlations between samples, positions and units, and
    the distribution over draws of the log of the mean square; and so the probability that a network of this law
    can start (`.p_start`, defined in docs/signal.md). Nothing is allocated and nothing about the model changes.

    Args:
        model: Any module, or a function that builds one (then `.sweep` can vary its arguments). With a scheme it
            may be on the meta device.
        inputs: A tensor, a tuple of positional arguments, a mapping of keyword arguments, or ``(args, kwargs)``;
            tensors may be on the meta device or given by `firstlight.capture.trace.shape(...)`. Real data are
            taken with their statistics, shapes alone as independent standard normal entries.
        scheme: Law of the weights as in `initialize` ("he", "normal(0.02)", …); by default the live weights'.
        on_missing: "measure" samples operations without a rule, as a caveat says; "raise" refuses them, named at once.
        dtype: Compute type whose range P(start) looks at ("bfloat16", "float16", …); by default the parameters'.
        backward: False leaves out the gradients.
        get_inputs: Turns `inputs` into one of the forms above.

    Returns:
        The prediction; print it, or use `to_frame()`, `to_json()`, `to_html()`, `compare` and `sweep`.

    Raises:
        InputError: An argument that cannot be used; live weights on the meta device.
        MissingRuleError: Operations without a rule, with `on_missing="raise"`.
        CaptureError: Control flow that depends on entries that do not exist.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        >>> round(predict(net, torch.randn(8, 64), "he")["1:relu"].output.q, 1)
        1.0
    """
    from firstlight.capture import predict as capture
    from firstlight.capture.trace import trace

    module = capture.built(model)
    args, kwargs = capture.arguments(inputs, module, get_inputs)
    graph = trace(module, args, kwargs)
    laws = None
    if scheme is not None:
        from firstlight.schemes.plan import plan

        laws = plan(module, scheme, graph=graph, frozen=True).laws()
    name = "live weights" if scheme is None else str(scheme)
    found = capture.predict(
        module, args, kwargs, laws=laws, scheme=name, on_missing=on_missing, dtype=dtype, backward=backward, graph=graph
    )
    if capture.is_factory(model):

        def again(*, scheme: Any = scheme, **settings: Any) -> Prediction:
            built: Any = model
            options: Any = {"on_missing": on_missing, "dtype": dtype, "backward": backward, "get_inputs": get_inputs}
            return predict(built(**settings), inputs, scheme, **options)

        again.defaults = capture.numeric_defaults(model)  # pyright: ignore[reportFunctionMemberAccess]
        object.__setattr__(found, "again", again)
    return found


def compare(prediction: Prediction, measurement: Measurement) -> Comparison:
    """Predicted beside measured, operation by operation, with z-scores.

    z = (ln q measured - ln q predicted)/s with s² the predicted variance of ln q over draws, divided by the number
    of measured draws, plus what finite sampling and the rules' own resolution (2 %) explain.

    Args:
        prediction: From `predict`.
        measurement: From `measure` on the same model; with ``draws=K`` the means over the draws are compared.

    Example:
        >>> import torch
        >>> net, x = torch.nn.Linear(64, 64), torch.randn(32, 64)
        >>> c = compare(predict(net, x), measure(net, x))
        >>> abs(c.nodes[-1].q_z) < 5
        True
    """
    from firstlight.propagate.comparison import join

    return join(prediction, measurement)


def initialize(
    model: nn.Module,
    scheme: Any = "he",
    *,
    batch: Any = None,
    seed: int = 0,
    only: Any = None,
    frozen: bool = False,
    dry_run: bool = False,
    get_inputs: Callable[[Any], Any] | None = None,
) -> Initialization:
    """Draw the weights of a model from a scheme, in place, all or nothing; `.undo()` puts the old ones back.

    Fans come from what each layer connects; with a batch, roles (readout, end of a residual branch), the
    activation whose gain a layer takes, and the fans of raw parameters come from the captured graph. Biases are
    set to 0 and gains of normalisations to 1 unless the scheme says otherwise. Every parameter is in the table,
    those left alone with the reason. Values depend on seed, parameter name, shape and scheme alone.

    Args:
        model: Any module whose parameters hold memory (with `dry_run` also on the meta device).
        scheme: Spec such as "he", "he(mode='fan_out')", "normal(0.02)", "random-walk(law='paper')"; or a
            function ``(Target, Context) -> Draw``.
        batch: A tensor, a tuple of positional arguments, a mapping of keyword arguments, or ``(args, kwargs)``.
        seed: Whole number ≥ 0.
        only: Glob pattern(s) on parameter names ("layers.*.weight"), or a function (name, parameter) -> bool.
        frozen: Draw parameters with requires_grad=False too; by default they are left alone.
        dry_run: Make the table, draw nothing.
        get_inputs: Turns `batch` into one of the forms above.

    Returns:
        The table of what changed and why (print it, or `to_frame()`, `to_json()`), with `undo()`.

    Raises:
        InputError: An argument that cannot be used.
        RegistryError: Unknown scheme.
        ModelError: Parameters on the meta device or without a shape. Whatever is raised, also an interrupt in the
            middle: nothing has changed.
    """
    from firstlight.schemes import apply

    graph = None
    if batch is not None:
        from firstlight.capture.inputs import check_batch
        from firstlight.capture.trace import trace

        inputs = check_batch(batch, model, get_inputs=get_inputs, values=False)
        graph = trace(model, inputs.args, inputs.kwargs)
    return apply.initialize(model, scheme, graph=graph, seed=seed, only=only, frozen=frozen, dry_run=dry_run)


def diagnose(
    model: nn.Module,
    batch: Any,
    loss: Callable[..., Tensor] | None = None,
    optimizer: Optimizer | None = None,
    *,
    targets: Any = None,
    get_inputs: Callable[[Any], Any] | None = None,
    seed: int = 0,
    try_remedies: bool = True,
    theory: bool = False,
) -> Report:
    """Say whether the network, with the weights that it holds now, can start to learn; if not, why, and what helps.

    Read-only and without an optimizer step: one measured pass, two gradients (what would tell samples apart, and
    what would shift all answers together), and a nearby point where both are flat.

    Args:
        model: Any module whose weights hold numbers, in the mode (usually train) in which training would begin.
        batch: A tensor, a tuple of positional arguments, a mapping of keyword arguments, or ``(args, kwargs)``.
        loss: Called with the model's output, with (output, batch), or with (output, targets); returns a scalar.
            Without one the checks on the loss are left out, and a fixed random residual stands for its gradient.
        optimizer: Checked for parameters that it does not hold; never stepped.
        targets: Second argument of the loss, for example the labels.
        get_inputs: Turns `batch` into one of the forms above.
        seed: Of the random residual, and of what the model itself draws (dropout).
        try_remedies: Where an initialization is the remedy, draw it in a copy of the model and diagnose that, so that
            the remedy named is one that helps, with the p_start that it gives. The model itself is not touched.
        theory: Hold the measurement against `predict` too: a disagreement is a finding that names the assumption
            that failed, and `.p_start` of a network that starts is the prediction's. Costs the trace.

    Returns:
        The report: `.verdict`, `.p_start`, `.findings` (worst and causes first), `.to_frame()`, `.to_json()`.

    Raises:
        InputError: If an argument cannot be used as given.
        ModelError: If the model, the loss or the backward pass raises.

    Example:
        >>> import torch
        >>> deep = [layer for _ in range(40) for layer in (torch.nn.Linear(16, 16), torch.nn.Sigmoid())]
        >>> diagnose(torch.nn.Sequential(*deep), torch.randn(32, 16)).verdict
        'will not start'
    """
    from copy import deepcopy
    from dataclasses import replace

    from firstlight.capture.evidence import gather, look
    from firstlight.checks.remedy import tried_on
    from firstlight.checks.verdict import judge
    from firstlight.schemes.gains import ASSUMED

    def judged(module: nn.Module, levels: Any = None) -> tuple[Report, Evidence]:
        kept = optimizer if module is model else None
        evidence = gather(module, batch, loss, kept, targets=targets, get_inputs=get_inputs, seed=seed, levels=levels)
        if theory:
            expected = predict(module, batch, get_inputs=get_inputs)
            joined = compare(expected, evidence.measurement)
            evidence = replace(evidence, comparison=joined, law_p_start=expected.start.p)
        return judge(evidence), evidence

    report, evidence = judged(model)
    if not try_remedies:
        return report
    known = (evidence.probe.loss_silent, evidence.probe.loss_constant, evidence.probe.loss_free)
    copies: list[tuple[nn.Module, dict[str, Any]]] = []

    def drawn(spec: str) -> nn.Module:
        if not copies:
            rows = [r for r in initialize(model, dry_run=True).table.rows if r.role == "other" or ASSUMED in r.reason]
            asks = any(model.get_parameter(r.name).requires_grad for r in rows)  # what only the graph tells
            copies.append((deepcopy(model), {"batch": batch, "get_inputs": get_inputs} if asks else {}))
        initialize(copies[0][0], spec, seed=seed, **copies[0][1])
        return copies[0][0]

    def looked(spec: str) -> Probe:
        return look(drawn(spec), batch, loss, targets=targets, get_inputs=get_inputs, seed=seed, levels=known)

    def line(spec: str) -> str:
        return f'firstlight.initialize(model, "{spec}"{", batch=batch" if copies and copies[0][1] else ""})'

    return tried_on(report, looked, lambda spec: judged(drawn(spec), known)[0], line)


def explain(code: str) -> str:
    """What a check measures, why it matters, when it is harmless, its remedy and its source.

    Args:
        code: For example "FWD001", in any case.

    Raises:
        RegistryError: If there is no such check.

    Example:
        >>> explain("out001").splitlines()[0]
        'OUT001: A softmax over one unit, which is always 1.'
    """
    from firstlight.checks.registry import find

    return find(code).explain()
