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


@pytest.fixture(scope="module")  # of one module: another one of them may not be open beside it
def browser():
    tools = pytest.importorskip("browser_tools")
    with tools.sync.sync_playwright() as tool:
        running = tool.chromium.launch(executable_path=tools.CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser, served):
    from browser_tools import opened

    with opened(browser, served.url) as tab:
        yield tab
