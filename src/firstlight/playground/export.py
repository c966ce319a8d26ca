"""A run as a short script: the same data, network, weights and steps in plain PyTorch, with the same seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from firstlight.playground.config import RunConfig
from firstlight.playground.network import FUNCTIONS, MODULES, NORMS
from firstlight.playground.points import Points

STEPS = 1000


def script(
    config: RunConfig,
    facts: Mapping[str, Any],
    points: Points | None = None,
    rates: Sequence[tuple[int, float]] = (),
) -> str:
    """A Python script that repeats a run; about twelve lines for a plain network.

    Args:
        config: The run.
        facts: What `problems.build` noted: "features", "outputs", "loss", "scheme_code".
        points: The person's points, where the run trains on them.
        rates: Learning rates that were set while the run went on: (first step, rate), the first from step 0.

    Returns:
        The script; its last lines print the cost.
    """
    if rates:
        config = replace(config, learning_rate=rates[0][1])
    if config.data == "own":
        return _own(config, facts, rates)
    batch = config.batch if 0 < config.batch < facts["samples"] else 0
    lines = ["import torch, torch.nn as nn, firstlight, firstlight.lab.data.catalogue as sets"]
    lines += _data(config, facts, points)
    lines += _network(config, facts)
    lines += _scheme(config, facts, "x[:2]")
    lines.append(f"optimizer = {_optimizer(config)}")
    if batch:
        lines.append(f"order, rows = torch.Generator().manual_seed({config.seed}), torch.empty(0, dtype=torch.long)")
    lines.append(f"for step in range({STEPS}):")
    lines += _rates(rates)
    if batch:
        lines.append(f"    rows = torch.randperm(len(x), generator=order) if len(rows) < {batch} else rows")
        lines.append(f"    now, rows = rows[:{batch}], rows[{batch}:]")
    now = "[now]" if batch else ""
    lines.append(f"    cost = {_loss(facts, f'model(x{now})', f'y{now}')}")
    lines.append("    optimizer.zero_grad(); cost.backward(); optimizer.step()")
    lines.append("    if step in (0, 10, 100, 999): print(step, float(cost.detach()))")
    return "\n".join(lines) + "\n"


def _data(config: RunConfig, facts: Mapping[str, Any], points: Points | None) -> list[str]:
    lines: list[str] = []
    if config.data == "custom":
        assert points is not None
        rows = [[float(f"{v:.9g}") for v in row] for row in points.x.tolist()]  # nine digits hold a float32
        lines.append(f"x, y = torch.tensor({rows}), torch.tensor({points.y.tolist()})")
    elif config.data in ("digits", "mnist"):
        loader = "load_or_digits" if config.data == "mnist" else "load"
        taken = f"take({facts['samples']}, seed={config.data_seed})"
        lines.append(f"data = sets.{loader}({config.data!r}).standardized().train.{taken}")
        lines.append("x, y = torch.tensor(data.x).flatten(1), torch.tensor(data.y)")
    else:
        count = config.count + config.count % 2
        lines.append(f"data = sets.load({config.data!r}, n={count}, seed={config.data_seed}).train")
        lines.append("x, y = torch.tensor(data.x), torch.tensor(data.y)")
    held = int(facts["samples"] * config.split)
    if not (held or config.noise or 0 < config.batch < facts["samples"]):
        return lines  # the order of the rows plays no part
    lines.insert(0, "import numpy as np")
    lines.append(f"random = np.random.default_rng(({config.data_seed}, 1)); order = random.permutation(len(x))")
    lines.append("x, y = x[order], y[order]")
    if config.noise:
        lines.append(
            f"x = torch.tensor(x.numpy() + {config.noise!r} * random.standard_normal(x.shape).astype('float32'))"
        )
    if held:
        lines.append(f"x, y = x[{held}:], y[{held}:]")
    return lines


def _network(config: RunConfig, facts: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    sizes = (facts["features"], *config.hidden)
    plain = not config.residual or not any(a == b for a, b in itertools.pairwise(sizes))
    if not plain:
        lines += [
            "class Branch(nn.Sequential):",
            f"    def forward(self, x): return x + {config.residual!r} * super().forward(x)",
        ]
    if config.activation in FUNCTIONS:
        act = "Function()"
        lines += ["class Function(nn.Module):", f"    def forward(self, x): return {FUNCTIONS[config.activation][0]}"]
    else:
        kind, arguments = MODULES[config.activation]
        act = f"nn.{kind}({', '.join(map(repr, arguments))})"
    bias = "" if config.bias else ", bias=False"
    norm = f"nn.{NORMS[config.normalization]}(b), " if config.normalization in NORMS else ""
    layer = f"nn.Linear(a, b{bias}), {norm}{act}"
    lines.append(f"sizes = {_sizes(sizes)}")
    if plain:
        made = f"[part for a, b in zip(sizes, sizes[1:]) for part in ({layer})]"
    else:
        made = f"[part for a, b in zip(sizes, sizes[1:]) for part in ([Branch({layer})] if a == b else [{layer}])]"
    lines.append(f"layers = {made}")
    lines.append(f"model = nn.Sequential(*layers, nn.Linear(sizes[-1], {facts['outputs']}{bias}))")
    return lines


def _sizes(sizes: tuple[int, ...]) -> str:
    rest = sizes[1:]
    if len(rest) > 4 and len(set(rest)) == 1:
        return f"[{sizes[0]}] + [{rest[0]}] * {len(rest)}"
    return repr(list(sizes))


def _scheme(config: RunConfig, facts: Mapping[str, Any], batch: str) -> list[str]:
    if config.scheme == "identity":
        # biases are zero; the gains of norms and the slopes of activations stay as they are made
        return [
            "for name, p in model.named_parameters():",
            f"    p.data = {config.gain!r} * torch.eye(*p.shape) if p.ndim == 2 else p.data * ('bias' not in name)",
        ]
    if config.scheme == "given" and config.data == "own":
        return []
    return [f"firstlight.initialize(model, {facts['scheme']!r}, batch={batch}, seed={config.seed})"]


def _optimizer(config: RunConfig) -> str:
    rate = f"lr={config.learning_rate!r}"
    return {
        "sgd": f"torch.optim.SGD(model.parameters(), {rate})",
        "momentum": f"torch.optim.SGD(model.parameters(), {rate}, momentum=0.9)",
        "adam": f"torch.optim.Adam(model.parameters(), {rate})",
    }[config.optimizer]


def _loss(facts: Mapping[str, Any], output: str, target: str) -> str:
    if facts["loss"] == "logistic":
        return f"nn.functional.binary_cross_entropy_with_logits({output}[:, 0], {target}.float())"
    if facts["loss"] == "mse":
        made = f"{target}[:, None]" if facts["outputs"] == 1 else f"nn.functional.one_hot({target}, {facts['outputs']})"
        return f"nn.functional.mse_loss({output}, {made}.float())"
    return f"nn.functional.cross_entropy({output}, {target})"


def _rates(rates: Sequence[tuple[int, float]]) -> list[str]:
    """The lines that change the learning rate where the person changed it."""
    if len(rates) < 2:
        return []
    return [f"    optimizer.param_groups[0]['lr'] = {dict(rates)!r}.get(step, optimizer.param_groups[0]['lr'])"]


def _own(config: RunConfig, facts: Mapping[str, Any], rates: Sequence[tuple[int, float]]) -> str:
    lines = [
        "import torch, firstlight",
        f"# model, args, kwargs and loss as you gave them to the playground: {facts['title']}",
        *_scheme(config, facts, "(args, kwargs)"),
        f"optimizer = {_optimizer(config)}",
        f"model.train(); torch.manual_seed({config.seed})  # of what the model draws in each pass, as dropout does",
        f"for step in range({STEPS}):",
        *_rates(rates),
        "    cost = loss(model(*args, **kwargs))",
        "    optimizer.zero_grad(); cost.backward(); optimizer.step()",
        "    if step in (0, 10, 100, 999): print(step, float(cost.detach()))",
    ]
    return "\n".join(lines) + "\n"
