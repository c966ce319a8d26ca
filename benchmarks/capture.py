"""What capturing a graph costs: `capture.trace` beside `torch.export` on whole published architectures.

Weights are on the meta device, inputs are one sample. Each cell is a fresh process: CPU seconds of the first capture
(one thread, after the imports; a user pays the first one) and peak resident memory of the process.
"""

from __future__ import annotations

import json
import logging
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table
from torch import nn

Made = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]
LIMIT_S = 400


def _ids(length: int) -> torch.Tensor:
    return torch.zeros(1, length, dtype=torch.long)


def _gpt2() -> Made:
    import transformers as t

    return t.GPT2LMHeadModel(t.GPT2Config()), (), {"input_ids": _ids(128)}


def _t5() -> Made:
    import transformers as t

    return t.T5ForConditionalGeneration(t.T5Config()), (), {"input_ids": _ids(128), "decoder_input_ids": _ids(64)}


def _swin() -> Made:
    import transformers as t

    return t.SwinModel(t.SwinConfig()), (), {"pixel_values": torch.zeros(1, 3, 224, 224)}


def _unet2d() -> Made:
    import diffusers as d

    return (
        d.UNet2DModel(  # pyright: ignore[reportPrivateImportUsage] - exported lazily
            sample_size=64
        ),
        (torch.zeros(1, 3, 64, 64), torch.tensor([3])),
        {},
    )


def _mixtral_8x7b() -> Made:
    import transformers as t

    return t.MixtralForCausalLM(t.MixtralConfig()), (), {"input_ids": _ids(128)}


def _mamba_130m() -> Made:
    import transformers as t

    return t.MambaForCausalLM(t.MambaConfig(num_hidden_layers=24)), (), {"input_ids": _ids(32)}


def _llama_70b() -> Made:
    import transformers as t

    config = t.LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    )
    return t.LlamaForCausalLM(config), (), {"input_ids": _ids(2048)}


MODELS: dict[str, Callable[[], Made]] = {
    "gpt2": _gpt2,
    "t5": _t5,
    "swin": _swin,
    "unet2d": _unet2d,
    "mixtral_8x7b": _mixtral_8x7b,
    "mamba_130m": _mamba_130m,
    "llama_70b": _llama_70b,
}


def _trace(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    from firstlight.capture.trace import trace

    return [node.op for node in trace(model, args, kwargs).nodes]


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    args = tuple(a.to("meta") for a in args) if any(p.is_meta for p in model.parameters()) else args
    kwargs = {k: v.to("meta") for k, v in kwargs.items()} | ({"use_cache": False} if "input_ids" in kwargs else {})
    program = torch.export.export(model, args, kwargs, strict=False)
    return [n.target.__name__.partition(".")[0] for n in program.graph.nodes if n.op == "call_function"]  # type: ignore[union-attr]


METHODS = {"trace": _trace, "export": _export}


def _cell(name: str, method: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    METHODS[method](nn.Linear(1, 1), (torch.zeros(1, 1),), {})  # imports, caches
    with torch.device("meta"):
        model, args, kwargs = MODELS[name]()
    args = tuple(torch.zeros(a.shape, dtype=a.dtype) for a in args)
    kwargs = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in kwargs.items()}
    model.eval()
    start = time.process_time()
    ops = METHODS[method](model, args, kwargs)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"s": seconds, "gib": peak, "nodes": len(ops)}


def _run_cell(name: str, method: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.capture", name, method]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {LIMIT_S} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"error": reason[:60]}
    return json.loads(lines[-1])


def run(cells: Callable[[str, str], dict[str, Any]] = _run_cell) -> Table:
    """One row per model: both methods."""
    title = "firstlight's trace (left) and torch.export(strict=False) (right); goal for llama_70b: 12 s, 2 GiB"
    table = Table(title=title)
    for heading in ("model", "CPU s", "GiB", "nodes", "CPU s", "GiB", "nodes", "ratio"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name in MODELS:
        ours, theirs = (cells(name, method) for method in ("trace", "export"))
        ratio = f"{theirs['s'] / ours['s']:.1f}x" if "s" in ours and "s" in theirs else ""
        table.add_row(name, *_columns(ours), *_columns(theirs), ratio)
    return table


def _columns(cell: dict[str, Any]) -> tuple[str, str, str]:
    if "error" in cell:
        return "fails", "", cell["error"]
    return f"{cell['s']:.2f}", f"{cell['gib']:.2f}", str(cell["nodes"])


if __name__ == "__main__":
    print(json.dumps(_cell(sys.argv[1], sys.argv[2])))
