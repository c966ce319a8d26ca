"""Draw the picture of the README: forward and backward lengths of one network under four initializations.

    python examples/walks.py [FILE.png]

A ReLU network of 100 layers × 64 units is measured on random inputs, as torch initializes it and as `firstlight`
does by three schemes. The grey band is the law's prediction for the random-walk scheme, mean ± 2 sd of the log.
"""

import math
import sys

import matplotlib as mpl
import torch
from torch import nn

import firstlight
from firstlight.theory import random_walk

mpl.use("Agg")
import matplotlib.pyplot as plt

DEPTH, WIDTH, SEED = 100, 64, 0
SCHEMES = {
    "torch default": ("torch-default", "#000000"),
    "Xavier": ("xavier", "#D55E00"),
    "He (keeps the mean)": ("he", "#0072B2"),
    "random walk (keeps the median)": ("random-walk", "#009E73"),
}


def network() -> nn.Sequential:
    """The plain deep stack."""
    layers = [m for _ in range(DEPTH) for m in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return nn.Sequential(*layers)


def lengths(model: nn.Module, batch: torch.Tensor) -> tuple[list[float], list[float]]:
    """log10 of the mean square behind each ReLU, and of the gradient there."""
    measured = firstlight.measure(model, batch)
    relus = [node for node in measured.nodes if node.op == "relu"]
    forward = [math.log10(node.output.q) if node.output.q > 0 else math.nan for node in relus]
    backward = [math.log10(node.grad.q) if node.grad is not None and node.grad.q > 0 else math.nan for node in relus]
    return forward, backward


def main(path: str) -> None:
    """Measure, draw and save."""
    batch = torch.randn(128, WIDTH, generator=torch.Generator().manual_seed(SEED))
    model = network()
    steps = range(1, DEPTH + 1)
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), layout="constrained", sharey=True)
    gain = random_walk.median_gain("relu", WIDTH)
    walks = [random_walk.walk("relu", [WIDTH] * d, gain) for d in steps]
    band = [2.0 * walk.sd / math.log(10.0) for walk in walks]
    # The band of the activations opens with the layers passed from the input, that of the gradients from the loss.
    for ax, width in zip(axes, (band, band[::-1]), strict=True):
        ax.fill_between(steps, [-w for w in width], width, color="0.85", lw=0, label="predicted ± 2 sd, random walk")
    for label, (scheme, colour) in SCHEMES.items():
        firstlight.initialize(model, scheme, seed=SEED, batch=batch)
        for ax, values in zip(axes, lengths(model, batch), strict=True):
            ax.plot(steps, values, color=colour, lw=1.6, label=label)
    axes[0].set(title="activations, from the input on", ylabel="log10 of the mean square", xlabel="layer")
    axes[1].set(title="gradients, from the loss back", xlabel="layer")
    axes[0].set_ylim(-32, 8)
    axes[0].legend(fontsize=8, loc="lower left", frameon=False)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{DEPTH} ReLU layers × {WIDTH} units, before any training", fontsize=11)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "walks.png")
