"""Schemes: pure functions from a parameter and its place in the network to a law; and their application."""

from firstlight.schemes import (  # noqa: F401 - importing a family enters its schemes into the list
    centred,
    fixed,
    orthogonal,
    residual,
    scaled,
    torch_default,
    walk,
)
from firstlight.schemes.apply import Initialization, initialize, sample, write
from firstlight.schemes.context import Context, Draw, Target
from firstlight.schemes.plan import Plan, plan
from firstlight.schemes.registry import names, resolve, scheme, schemes
from firstlight.schemes.table import Row, Table

__all__ = [
    "Context",
    "Draw",
    "Initialization",
    "Plan",
    "Row",
    "Table",
    "Target",
    "initialize",
    "names",
    "plan",
    "resolve",
    "sample",
    "scheme",
    "schemes",
    "write",
]
