"""The file of networks on which the command line is tried."""

from __future__ import annotations

import pytest
from cli_tools import NETS


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(NETS)
    return str(path)
