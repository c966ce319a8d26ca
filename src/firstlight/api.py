"""The verbs: orchestration only; the work is done on the floors below."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from firstlight.errors import InputError
from firstlight.theory import activations, random_walk

if TYPE_CHECKING:
    from torch import Tensor, nn

    from firstlight.graph.measurement import Measurement
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
        from firstlight.schemes import apply

        def redraw(module: nn.Module, draw_seed: int) -> None:
            apply.initialize(module, scheme, seed=draw_seed)

        law = str(scheme)
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


def initialize(
    model: nn.Module,
    scheme: Any = "he",
    *,
    batch: Any = None,
    seed: int = 0,
    only: Any = None,
    frozen: bool = False,
    dry_run: bool = False,
) -> Initialization:
    """Draw the weights of a model from a scheme, in place, all or nothing; `.undo()` puts the old ones back.

    Fans come from what each layer connects; with a batch, roles (readout, end of a residual branch), the
    activation whose gain a layer takes, and the fans of raw parameters come from the captured graph. Biases are
    set to 0 and gains of normalisations to 1 unless the scheme says otherwise. Every parameter is in the table,
    those left alone with the reason. Values depend on seed, parameter name, shape and scheme alone.

    Args:
        model: Any module whose parameters hold memory (with `dry_run` also on the meta device).
        scheme: Spec such as "he", "he(mode='fan_out')", "normal(0.02)", "random-walk(law='paper')"; or a function
            ``(Target, Context) -> Draw``.
        batch: A tensor, a tuple of positional arguments, a mapping of keyword arguments, or ``(args, kwargs)``.
        seed: Whole number ≥ 0.
        only: Glob pattern(s) on parameter names ("layers.*.weight"), or a function (name, parameter) -> bool.
        frozen: Draw parameters with requires_grad=False too; by default they are left alone.
        dry_run: Make the table, draw nothing.

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
        from firstlight.capture.trace import trace

        graph = trace(model, batch)
    return apply.initialize(model, scheme, graph=graph, seed=seed, only=only, frozen=frozen, dry_run=dry_run)
