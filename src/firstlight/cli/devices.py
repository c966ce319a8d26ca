"""Where the command line runs a network: the device that is asked for, or the one on which the factory made it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from firstlight.cli.batch import Job
from firstlight.errors import InputError


def find_device(name: str) -> torch.device:
    """The device of that name, tried.

    Raises:
        InputError: If torch does not know it, or cannot use it here.
    """
    why = ""
    try:
        device = torch.device(name)
    except RuntimeError:
        pass  # it lists all devices that torch was ever written for
    else:
        try:
            torch.ones(1, device=device).sum().item()
            return device
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # what builds without it raise differs
            why = f" ({str(error).splitlines()[0]})" if str(error) else ""
    there = torch.accelerator.current_accelerator(check_available=True)
    expected = "cpu" if there is None else f"cpu or {there.type}, which torch sees here"
    raise InputError("--device", got=f"{name!r}{why}", expected=expected)


def together(module: nn.Module, job: Job, device: torch.device | None) -> tuple[nn.Module, Job]:
    """Module and batch on `device`; without one, the batch where the module's weights are, if they are at one place."""
    if device is not None:
        module = module.to(device)
    else:
        found = {p.device for p in (*module.parameters(), *module.buffers())}
        if len(found) != 1 or (device := found.pop()).type == "meta":
            return module, job
    return module, replace(job, batch=_moved(job.batch, device), target=_moved(job.target, device))


def _moved(tree: Any, device: torch.device) -> Any:
    return tree_map_only(Tensor, lambda t: t.to(device), tree)
