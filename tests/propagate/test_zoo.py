"""No rule of any network of the zoo gives up: one that raises falls back with a caveat, which nobody would see."""

import logging
from collections.abc import Iterator

import pytest
import torch

import firstlight
from tests.models import ZOO


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)  # Mamba tells that its fast kernels are missing
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", ZOO)
def test_no_rule_fails(name: str) -> None:
    torch.set_num_threads(1)
    entry = ZOO[name]
    model, args, kwargs = entry.make(depth=entry.depths[0], seed=0)
    found = firstlight.predict(model, (args, kwargs), "he")
    wrong = [(n.name, c) for n in found.nodes for c in n.caveats if "failed" in c or "the rule gave" in c]
    assert not wrong
