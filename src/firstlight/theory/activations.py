"""The nonlinearities: one frozen record each, with f, f′, kinks, closed forms and source.

To add one, write a function that returns an `Activation` and decorate it with `@activation(name)`; its
keyword arguments are the constructor parameters. Rules, gains, documentation and tests read this list.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import InputError
from firstlight.theory import special
from firstlight.theory.activation_registry import Activation, Parameter, activation, aliases, find, get, names

__all__ = [
    "SELU_ALPHA",
    "SELU_SCALE",
    "Activation",
    "Parameter",
    "activation",
    "aliases",
    "find",
    "get",
    "names",
]

Array = NDArray[np.float64]
SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772
_INF = float("inf")


def _require(ok: bool, where: str, got: object, expected: str) -> None:
    if not ok:
        raise InputError(f"activation {where}", got=repr(got), expected=expected)


def _positive(x: Array, value: ArrayLike, other: ArrayLike) -> Array:
    return cast("Array", np.where(x > 0, value, other))


def _slopes(name: str, a: float, parameter: str, reference: str) -> Activation:
    """Slope 1 above zero and a below: the family of relu and leaky_relu."""
    return Activation(
        name,
        f=lambda x: _positive(x, x, a * x),
        df=lambda x: _positive(x, 1.0, a),
        kinks=() if a == 1.0 else (0.0,),
        parameters=((parameter, a),),
        degree=1.0,
        bounds=(0.0 if a <= 0 else -_INF, _INF),
        dead_below=0.0 if a == 0 else None,
        reference=reference,
    )


@activation("linear", "identity")
def _linear() -> Activation:
    return Activation("linear", f=lambda x: x * 1.0, df=np.ones_like, degree=1.0, reference="sussillo2014")


@activation("relu", "threshold0")
def _relu() -> Activation:
    return Activation(
        "relu",
        f=lambda x: np.maximum(x, 0.0),
        df=lambda x: _positive(x, 1.0, 0.0),
        kinks=(0.0,),
        bounds=(0.0, _INF),
        dead_below=0.0,
        degree=1.0,
        reference="he2015",
    )


@activation("leaky_relu")
def _leaky_relu(negative_slope: float = 0.01) -> Activation:
    return _slopes("leaky_relu", negative_slope, "negative_slope", "he2015")


@activation("prelu")
def _prelu(init: float = 0.25) -> Activation:
    return _slopes("prelu", init, "init", "he2015")


def _exponential(name: str, scale: float, alpha: float, width: float, reference: str) -> Activation:
    """scale·u above zero, scale·alpha·(exp(u/width)-1) below: elu, celu and selu."""

    def below(x: Array) -> Array:
        return np.minimum(x, 0.0) / width

    return Activation(
        name,
        f=lambda x: scale * _positive(x, x, alpha * np.expm1(below(x))),
        df=lambda x: scale * _positive(x, 1.0, alpha / width * np.exp(below(x))),
        kinks=(0.0,),
        parameters=() if name == "selu" else (("alpha", alpha),),
        bounds=(-scale * alpha, _INF),
        scale=width,
        reference=reference,
    )


@activation("elu")
def _elu(alpha: float = 1.0) -> Activation:
    _require(alpha > 0, "'elu', alpha", alpha, "a positive number")
    return _exponential("elu", 1.0, alpha, 1.0, "clevert2015")


@activation("celu")
def _celu(alpha: float = 1.0) -> Activation:
    _require(alpha > 0, "'celu', alpha", alpha, "a positive number")
    return _exponential("celu", 1.0, alpha, alpha, "barron2017")


@activation("selu")
def _selu() -> Activation:
    return _exponential("selu", SELU_SCALE, SELU_ALPHA, 1.0, "klambauer2017")


@activation("gelu", "gelu_none")
def _gelu(approximate: str = "none") -> Activation:
    _require(approximate in ("none", "tanh"), "'gelu', approximate", approximate, "'none' or 'tanh'")
    if approximate == "tanh":
        return get("gelu-tanh")
    return Activation(
        "gelu",
        f=lambda x: x * special.ndtr(x),
        df=lambda x: special.ndtr(x) + x * special.normal_density(x),
        bounds=(-0.16997120747990369, _INF),
        reference="hendrycks2016",
    )


@activation("gelu-tanh", "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "NewGELUActivation", "FastGELU")
def _gelu_tanh() -> Activation:
    k, a = np.sqrt(2.0 / np.pi), 0.044715

    def gate(x: Array) -> Array:
        return np.tanh(k * (x + a * x * x * x))

    def df(x: Array) -> Array:
        t = gate(x)
        return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * k * (1.0 + 3.0 * a * x * x)

    return Activation(
        "gelu-tanh",
        f=lambda x: 0.5 * x * (1.0 + gate(x)),
        df=df,
        bounds=(-0.17004075057125412, _INF),
        reference="hendrycks2016",
    )


@activation("silu", "swish", "SiLUActivation")
def _silu() -> Activation:
    def df(x: Array) -> Array:
        s = special.expit(x)
        return s * (1.0 + x * (1.0 - s))

    return Activation(
        "silu",
        f=lambda x: x * special.expit(x),
        df=df,
        bounds=(-0.27846454276107380, _INF),
        reference="elfwing2017",
    )


@activation("mish")
def _mish() -> Activation:
    def df(x: Array) -> Array:
        t = np.tanh(special.softplus(x))
        return t + x * (1.0 - t * t) * special.expit(x)

    return Activation(
        "mish",
        f=lambda x: x * np.tanh(special.softplus(x)),
        df=df,
        bounds=(-0.30884341322020455, _INF),
        reference="misra2019",
    )


@activation("softplus")
def _softplus(beta: float = 1.0, threshold: float = 20.0) -> Activation:
    """Torch is the identity above beta·u > threshold, off by exp(-threshold)/beta; that is not modelled."""
    _require(beta > 0, "'softplus', beta", beta, "a positive number")
    return Activation(
        "softplus",
        f=lambda x: special.softplus(beta * x) / beta,
        df=lambda x: special.expit(beta * x),
        parameters=(("beta", beta), ("threshold", threshold)),
        bounds=(0.0, _INF),
        scale=1.0 / beta,
        reference="dugas2001",
    )


@activation("tanh")
def _tanh() -> Activation:
    return Activation(
        "tanh",
        f=np.tanh,
        df=lambda x: 1.0 - np.square(np.tanh(x)),
        bounds=(-1.0, 1.0),
        saturation=(-2.9932228461263809, 2.9932228461263809),
        reference="lecun1998",
    )


@activation("sigmoid", "logistic", "expit")
def _sigmoid() -> Activation:
    def df(x: Array) -> Array:
        s = special.expit(x)
        return s * (1.0 - s)

    return Activation(
        "sigmoid",
        f=special.expit,
        df=df,
        bounds=(0.0, 1.0),
        saturation=(-5.9864456922527618, 5.9864456922527618),
        reference="glorot2010",
    )


@activation("hardtanh")
def _hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> Activation:
    _require(min_val < max_val, "'hardtanh', min_val, max_val", (min_val, max_val), "min_val < max_val")
    return Activation(
        "hardtanh",
        f=lambda x: np.clip(x, min_val, max_val),
        df=lambda x: np.where((x > min_val) & (x < max_val), 1.0, 0.0),
        kinks=(min_val, max_val),
        parameters=(("min_val", min_val), ("max_val", max_val)),
        bounds=(min_val, max_val),
        saturation=(min_val, max_val),
        dead_below=0.0 if min_val == 0 else None,
        scale=max_val - min_val,
        reference="collobert2004",
    )


@activation("hardsigmoid")
def _hardsigmoid() -> Activation:
    return Activation(
        "hardsigmoid",
        f=lambda x: np.clip(x / 6.0 + 0.5, 0.0, 1.0),
        df=lambda x: np.where(np.abs(x) < 3.0, 1.0 / 6.0, 0.0),
        kinks=(-3.0, 3.0),
        bounds=(0.0, 1.0),
        saturation=(-3.0, 3.0),
        dead_below=-3.0,
        reference="courbariaux2015",
    )


@activation("hardswish")
def _hardswish() -> Activation:
    return Activation(
        "hardswish",
        f=lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
        df=lambda x: np.where(np.abs(x) < 3.0, x / 3.0 + 0.5, np.where(x >= 3.0, 1.0, 0.0)),
        kinks=(-3.0, 3.0),
        bounds=(-0.375, _INF),
        dead_below=-3.0,
        reference="howard2019",
    )


@activation("relu6")
def _relu6() -> Activation:
    return Activation(
        "relu6",
        f=lambda x: np.clip(x, 0.0, 6.0),
        df=lambda x: np.where((x > 0.0) & (x < 6.0), 1.0, 0.0),
        kinks=(0.0, 6.0),
        bounds=(0.0, 6.0),
        saturation=(0.0, 6.0),
        dead_below=0.0,
        reference="howard2017",
    )


@activation("softsign")
def _softsign() -> Activation:
    return Activation(
        "softsign",
        f=lambda x: x / (1.0 + np.abs(x)),
        df=lambda x: 1.0 / np.square(1.0 + np.abs(x)),
        kinks=(0.0,),
        bounds=(-1.0, 1.0),
        saturation=(-9.0, 9.0),
        reference="glorot2010",
    )


def _sin_cross(p: Array, q: Array, c: Array) -> Array:
    """exp(-(p+q)/2)·sinh(c√(pq)), without overflow."""
    s = np.abs(c) * np.sqrt(p * q)
    return -0.5 * np.sign(c) * np.exp(s - 0.5 * (p + q)) * np.expm1(-2.0 * s)


@activation("sin", "sine", "siren")
def _sin() -> Activation:
    return Activation(
        "sin",
        f=np.sin,
        df=np.cos,
        bounds=(-1.0, 1.0),
        square=lambda q: -0.5 * np.expm1(-2.0 * q),
        cross=_sin_cross,
        period=2.0 * np.pi,
        reference="sitzmann2020",
    )


def _erf_cross(p: Array, q: Array, c: Array) -> Array:
    ratio = 2.0 * c * np.sqrt(p * q) / np.sqrt((1.0 + 2.0 * p) * (1.0 + 2.0 * q))
    return 2.0 / np.pi * np.arcsin(ratio)


@activation("erf")
def _erf() -> Activation:
    return Activation(
        "erf",
        f=special.erf,
        df=lambda x: 2.0 / np.sqrt(np.pi) * np.exp(-x * x),
        bounds=(-1.0, 1.0),
        saturation=(-2.1459660262893472, 2.1459660262893472),
        square=lambda q: _erf_cross(q, q, np.ones_like(q)),
        cross=_erf_cross,
        reference="williams1997",
    )


@activation("abs")
def _abs() -> Activation:
    return Activation(
        "abs", f=np.abs, df=np.sign, kinks=(0.0,), bounds=(0.0, _INF), degree=1.0, reference="jarrett2009"
    )


@activation("relu²", "relu_squared", "squared_relu", "ReLUSquaredActivation")
def _relu_squared() -> Activation:
    return Activation(
        "relu²",
        f=lambda x: np.square(np.maximum(x, 0.0)),
        df=lambda x: 2.0 * np.maximum(x, 0.0),
        kinks=(0.0,),
        bounds=(0.0, _INF),
        dead_below=0.0,
        degree=2.0,
        reference="so2021",
    )


@activation("logsigmoid")
def _logsigmoid() -> Activation:
    return Activation(
        "logsigmoid",
        f=lambda x: -special.softplus(-x),
        df=lambda x: special.expit(-x),
        bounds=(-_INF, 0.0),
        reference="dugas2001",
    )


@activation("tanhshrink")
def _tanhshrink() -> Activation:
    return Activation(
        "tanhshrink",
        f=lambda x: x - np.tanh(x),
        df=lambda x: np.square(np.tanh(x)),
        reference="paszke2019",
    )
