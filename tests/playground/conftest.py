"""A playground that is served once for all tests of this folder."""

from __future__ import annotations

import pytest
import torch

from firstlight.playground import launch


@pytest.fixture(scope="session")
def served():
    threads = torch.get_num_threads()
    with launch.start() as running:
        yield running
    torch.set_num_threads(threads)
