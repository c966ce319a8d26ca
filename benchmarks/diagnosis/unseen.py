"""Another mixture than the main set's: more architectures, and depths, widths and scales drawn continuously."""

from __future__ import annotations

import random

from benchmarks.diagnosis.nets import Config
from benchmarks.diagnosis.population import ACTS, FAULTS, INPUTS, SOUND, TABLES

COUNT = 190
FAMILIES = ["mlp"] * 6 + ["taper", "taper", "gated", "gated", "dense", "conv1d", "conv1d", "conv", "conv", "resmlp"]
FAMILIES += ["resmlp", "resconv", "transformer", "transformer", "rnn", "lstm", "gru"]
# Deepest and widest per family, so that each trains in seconds.
LIMITS = {"mlp": (60, 256), "taper": (40, 128), "gated": (16, 64), "dense": (20, 16), "conv1d": (20, 32),
          "conv": (16, 16), "resmlp": (40, 64), "resconv": (8, 12), "transformer": (10, 32), "rnn": (3, 32),
          "lstm": (3, 32), "gru": (3, 32)}  # fmt: skip


def unseen(seed: int, count: int = COUNT) -> list[Config]:
    """42 % plain, 33 % from where networks fail most, 15 % with one fault, 6 % with bad inputs, 4 % with bad heads."""
    rng = random.Random(seed)
    out: list[Config] = []
    while len(out) < count:
        kind = rng.random()
        if kind < 0.42:
            c = _plain(rng)
        elif kind < 0.75:
            c = _hard(rng)
        elif kind < 0.90:
            c = _with(_carrier(rng), fault=rng.choice(FAULTS))
        elif kind < 0.96:
            c = _raw(rng)
        else:
            c = _head(rng)
        linear_rings = c.activation == "linear" and c.task == "circles" and c.family != "gated"
        if c not in out and not linear_rings:
            out.append(c)
    return [c for c in out if _quick(c)]


def _quick(c: Config) -> bool:
    """Whether training takes seconds: known before any label, so it favours none."""
    heavy = {"transformer": 6, "resconv": 6, "conv1d": 1.8, "conv": 1.8, "resmlp": 2, "gated": 2}.get(c.family, 1)
    return heavy * c.depth * (1.6 if c.norm in {"batch", "layer", "after", "dropout"} else 1) <= 22 or (
        c.family in {"mlp", "taper"} and not c.norm
    )


def _between(rng: random.Random, low: float, high: float) -> float:
    """Log-uniform."""
    return float(low * (high / low) ** rng.random())


def _law(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(SOUND)
    name = rng.choice(["normal", "normal", "uniform", "he", "orthogonal", "positive", "constant", "fan_out", "zeros"])
    limits = {"normal": (1e-4, 2), "uniform": (0.02, 2), "he": (0.2, 30), "orthogonal": (0.5, 2.5),
              "positive": (0.03, 1), "constant": (0.01, 1)}  # fmt: skip
    return f"{name}:{_between(rng, *limits[name]):.3g}" if name in limits else name


def _data(rng: random.Random, family: str) -> str:
    if family in {"conv", "resconv"}:
        return "digits_image"
    if family == "conv1d":
        return "waves"
    if family in {"transformer", "rnn", "lstm", "gru"}:
        return rng.choice(["majority", "waves"])
    return rng.choice(TABLES)


def _plain(rng: random.Random) -> Config:
    family = rng.choice(FAMILIES)
    deepest, widest = LIMITS[family]
    depth = round(_between(rng, 1, deepest))
    width = round(_between(rng, 4, min(widest, 64) if depth > 20 else widest))
    norms = {"mlp": ["", "", "", "batch", "layer", "dropout"], "resmlp": ["", "after", "scaled", "batch", "layer"],
             "resconv": ["", "after", "scaled", "batch"], "transformer": ["pre", "post", ""],
             "gated": ["", "", "layer"], "dense": ["", "batch"], "taper": ["", "", "batch"],
             "conv": ["", "", "batch"], "conv1d": ["", "", "batch"]}  # fmt: skip
    act = "tanh" if family in {"rnn", "lstm", "gru"} else rng.choice(ACTS)
    if family == "transformer":
        width = max(8, width // 4 * 4)
    return Config(family, _data(rng, family), depth, width, act, rng.choice(norms.get(family, [""])), _law(rng),
                  seed=rng.randrange(1000, 2000))  # fmt: skip


def _carrier(rng: random.Random, family: str = "") -> Config:
    """A network that would start, for one fault."""
    c = _plain(rng)
    while family and c.family != family:
        c = _plain(rng)
    return _with(c, depth=min(c.depth, rng.choice([2, 3, 5])), width=max(c.width, 16), scheme=rng.choice(SOUND))


def _hard(rng: random.Random) -> Config:
    seed, kind, family = rng.randrange(1000, 2000), rng.random(), rng.choice(["mlp", "mlp", "taper", "conv1d"])
    data = _data(rng, family)
    if kind < 0.5:  # fades with depth
        act = rng.choice(["relu", "tanh", "sigmoid", "gelu", "silu", "elu", "softplus", "hardtanh", "softsign"])
        scheme = rng.choice([
            "default", "xavier", "lecun", f"normal:{_between(rng, 0.01, 0.2):.3g}",
            f"uniform:{_between(rng, 0.02, 0.3):.3g}", f"he:{_between(rng, 0.1, 1.0):.3g}",
        ])  # fmt: skip
        depth = round(_between(rng, 6, 20 if family == "conv1d" else 45))
        return Config(family, data, depth, rng.choice([6, 8, 12, 16, 24, 32]), act, "", scheme, seed=seed)
    if kind < 0.7:  # too narrow
        return Config("mlp", rng.choice(TABLES), round(_between(rng, 5, 35)), rng.choice([3, 4, 5, 7]),
                      rng.choice(["relu", "relu", "relu6", "leaky_relu"]), "",
                      rng.choice(["he", "he_uniform", "default", "orthogonal:1.41"]), seed=seed)  # fmt: skip
    act = rng.choice(["relu", "tanh", "linear", "sigmoid", "gelu", "hardtanh", "silu"])  # too large
    scheme = rng.choice([f"he:{_between(rng, 4, 60):.3g}", f"normal:{_between(rng, 0.5, 3):.3g}",
                         f"positive:{_between(rng, 0.3, 2):.3g}", f"constant:{_between(rng, 0.1, 2):.3g}"])  # fmt: skip
    depth = round(_between(rng, 2, 20))
    return Config(family, data, depth, rng.choice([12, 24, 48]) if family != "conv1d" else 12, act, "", scheme,
                  seed=seed)  # fmt: skip


def _raw(rng: random.Random) -> Config:
    c = _carrier(rng, rng.choice(["mlp", "mlp", "conv", "conv1d"]))
    if c.family == "mlp" and rng.random() < 0.5:
        return _with(c, task=rng.choice(["cancer_raw", "wine_raw", "diabetes_raw"]))
    return _with(c, inputs=rng.choice(INPUTS))


def _head(rng: random.Random) -> Config:
    c = _carrier(rng, "mlp")
    head = rng.choice(["softmax", "softmax1", "sigmoid", "relu"])
    data = {"softmax": ["digits", "blobs"], "softmax1": ["cancer", "diabetes"], "sigmoid": ["cancer"],
            "relu": ["diabetes", "teacher", "digits"]}[head]  # fmt: skip
    return _with(c, task=rng.choice(data), head=head)


def _with(c: Config, **changes: str | int) -> Config:
    values: dict[str, str | int] = {f: getattr(c, f) for f in c.__dataclass_fields__}
    return Config(**{**values, **changes})  # pyright: ignore[reportArgumentType]
