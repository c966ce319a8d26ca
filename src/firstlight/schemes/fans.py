"""Fans, roles and own laws of torch's layers: what one entry of a parameter is connected to.

Fans are counted, not read off shapes: fan_in is the number of input entries that one output entry sums over,
on average over output positions, fan_out the number of output entries that one input entry reaches. Stacked
maps (gates, query/key/value, groups) are counted one by one, because they are separate maps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from firstlight.schemes.context import Builtin, Role


@dataclass(frozen=True, slots=True)
class Site:
    """What a parameter is in its layer; see `Target` for the fields."""

    role: Role
    fan_in: float | None = None
    fan_out: float | None = None
    split: int = 1
    in_axes: tuple[int, ...] = (1,)
    kernel_axes: tuple[int, ...] = ()
    channels: tuple[int, int] | None = None
    builtin: Builtin | None = None
    zero_rows: tuple[int, ...] = ()
    offset: float = 0.0


Sites = Mapping[str, Site]
_LAYERS: dict[type[nn.Module], Callable[..., Sites]] = {}


def layer(*types: type[nn.Module]) -> Callable[[Callable[..., Sites]], Callable[..., Sites]]:
    """Register the sites of the parameters of one or more module types (subclasses included)."""

    def register(function: Callable[..., Sites]) -> Callable[..., Sites]:
        for kind in types:
            if kind in _LAYERS:
                raise ValueError(f"{kind.__name__} is registered twice")
            _LAYERS[kind] = function
        return function

    return register


def sites(module: nn.Module) -> Sites:
    """Sites of a module's parameters by name relative to it; empty for types that are not known here."""
    for kind in type(module).__mro__:
        if kind in _LAYERS:
            return _LAYERS[kind](module)
    return {}


def all_sites(model: nn.Module) -> Sites:
    """Sites, by qualified name, of all parameters of a model whose layer types are known."""
    found: dict[str, Site] = {}
    transformers: dict[nn.Transformer, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, site in sites(module).items():
            # A containing module knows better than the part (MultiheadAttention resets its out_proj).
            found.setdefault(prefix + name, site)
        if isinstance(module, nn.Transformer):
            transformers.setdefault(module, prefix)
    for module, prefix in transformers.items():
        _transformer(module, prefix, found)
    return found


def uniform(bound: float) -> Builtin:
    """U(-bound, bound)."""
    return Builtin("uniform", bound)


def constant(value: float) -> Builtin:
    """All entries equal."""
    return Builtin("constant", value)


def _inverse_root(fan: float) -> float:
    return 1.0 / math.sqrt(fan) if fan > 0 else 0.0


@layer(nn.Linear)
def _linear(m: nn.Linear) -> Sites:
    return _of_map(m.in_features, m.out_features)


@functools.lru_cache(maxsize=256)  # networks repeat their layers
def _of_map(n_in: int, n_out: int) -> Sites:
    bound = uniform(_inverse_root(n_in))  # kaiming_uniform_(a=√5) is U(±1/√fan_in)
    weight = Site("weight", n_in, n_out, channels=(n_in, n_out), builtin=bound)
    return {"weight": weight, "bias": Site("bias", n_in, builtin=bound)}


@layer(nn.Bilinear)
def _bilinear(m: nn.Bilinear) -> Sites:
    # One output sums over all pairs. An entry of input 1 reaches out·in2 products, one of input 2 out·in1.
    pairs = m.in1_features * m.in2_features
    bound = uniform(_inverse_root(m.in1_features))
    weight = Site("weight", pairs, m.out_features * math.sqrt(pairs), in_axes=(1, 2), channels=(pairs, m.out_features))
    return {"weight": replace(weight, builtin=bound), "bias": Site("bias", pairs, builtin=bound)}


@layer(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _conv(m: nn.Conv2d) -> Sites:
    kernel = math.prod(m.kernel_size)
    n_in, n_out = m.in_channels // m.groups, m.out_channels // m.groups
    fan_in = n_in * kernel
    axes = tuple(range(2, 2 + len(m.kernel_size)))
    bound = uniform(_inverse_root(fan_in))
    weight = Site(
        "weight",
        fan_in,
        n_out * kernel / math.prod(m.stride),
        split=m.groups,
        in_axes=(1, *axes),
        kernel_axes=axes,
        channels=(n_in, n_out),
        builtin=bound,
    )
    return {"weight": weight, "bias": Site("bias", fan_in, builtin=bound)}


@layer(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _conv_transpose(m: nn.ConvTranspose2d) -> Sites:
    # Each input entry is spread over a whole kernel, so an output entry sums over in·k/stride of them.
    kernel = math.prod(m.kernel_size)
    n_in, n_out = m.in_channels // m.groups, m.out_channels // m.groups
    fan_in = n_in * kernel / math.prod(m.stride)
    axes = tuple(range(2, 2 + len(m.kernel_size)))
    bound = uniform(_inverse_root(n_out * kernel))  # torch reads the fan off axis 1, which here holds outputs
    weight = Site(
        "weight",
        fan_in,
        n_out * kernel,
        split=m.groups,
        in_axes=(0,),
        kernel_axes=axes,
        channels=(n_in, n_out),
        builtin=bound,
    )
    return {"weight": weight, "bias": Site("bias", fan_in, builtin=bound)}


@layer(nn.Embedding, nn.EmbeddingBag)
def _embedding(m: nn.Embedding) -> Sites:
    rows = () if m.padding_idx is None else (m.padding_idx,)
    site = Site("embedding", 1, m.embedding_dim, in_axes=(0,), builtin=Builtin("normal", 1.0), zero_rows=rows)
    return {"weight": site}


_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _recurrent(names: Mapping[str, tuple[int, ...]], gates: int, hidden: int) -> Sites:
    bound = uniform(_inverse_root(hidden))
    found: dict[str, Site] = {}
    for name, shape in names.items():
        if len(shape) == 1:
            found[name] = Site("bias", hidden, builtin=bound)
            continue
        split = 1 if name.startswith("weight_hr") else gates  # the projection of LSTM(proj_size=...) has no gates
        n_in, n_out = shape[1], shape[0] // split
        found[name] = Site("weight", n_in, n_out, split=split, channels=(n_in, n_out), builtin=bound)
    return found


@layer(nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)
def _rnn(m: nn.RNNBase) -> Sites:
    kind = next(k for t in type(m).__mro__ for k in _GATES if t.__name__ in (k, k + "Cell"))
    shapes = {name: tuple(p.shape) for name, p in m.named_parameters(recurse=False)}
    return _recurrent(shapes, _GATES[kind], m.hidden_size)


@layer(nn.MultiheadAttention)
def _attention(m: nn.MultiheadAttention) -> Sites:
    e = m.embed_dim

    def projection(n_in: int, *, stacked: int = 1) -> Site:
        bound = uniform(math.sqrt(6.0 / (stacked * e + n_in)))  # xavier_uniform_ on the tensor as it is stacked
        return Site("weight", n_in, e, split=stacked, channels=(n_in, e), builtin=bound)

    extra = Site("other", builtin=Builtin("normal", _inverse_root(e)))  # xavier_normal_ on (1, 1, e)
    zero = Site("bias", e, builtin=constant(0.0))
    return {
        "in_proj_weight": projection(e, stacked=3),
        "q_proj_weight": projection(e),
        "k_proj_weight": projection(m.kdim),
        "v_proj_weight": projection(m.vdim),
        "in_proj_bias": zero,
        "out_proj.bias": zero,
        "bias_k": extra,
        "bias_v": extra,
    }


@layer(nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
def _norm(m: nn.Module) -> Sites:
    return {"weight": Site("gain", builtin=constant(1.0)), "bias": Site("bias", builtin=constant(0.0))}


@layer(nn.PReLU)
def _prelu(m: nn.PReLU) -> Sites:
    return {"weight": Site("slope", builtin=constant(m.init))}


def _transformer(model: nn.Transformer, prefix: str, found: dict[str, Site]) -> None:
    """nn.Transformer draws all its matrices again by xavier_uniform_ once it is built."""
    for name, p in model.named_parameters():
        site = found.get(prefix + name)
        if site is not None and p.dim() > 1:
            bound = uniform(math.sqrt(6.0 / (p.shape[0] + p.shape[1])))
            found[prefix + name] = replace(site, builtin=bound)
