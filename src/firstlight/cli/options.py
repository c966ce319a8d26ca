"""The options that several verbs share, each declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """In which form a result is written."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"


class FailOn(StrEnum):
    """From which severity on findings make the exit code 1."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    NEVER = "never"


class Dtype(StrEnum):
    """Element type to which model and real-valued inputs are converted."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def torch_name(self) -> str:
        """The name that torch has for it."""
        return {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}.get(self.value, self.value)


_MODEL = "The model", "The batch", "The result"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:FACTORY",
        help="A dotted module or a path to a .py file, and in it a callable that returns a torch.nn.Module, "
        "or the module itself. Example: nets.py:build",
        show_default=False,
    ),
]
FactoryArgs = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="KEY=VALUE", help="Argument for the factory; repeat it.", rich_help_panel=_MODEL[0]),
]
Seed = Annotated[
    int,
    typer.Option(help="Seed of the weights that the factory draws and of random inputs.", rich_help_panel=_MODEL[0]),
]
Train = Annotated[
    bool | None,
    typer.Option("--train/--eval", help="Set the mode; by default the model's own.", rich_help_panel=_MODEL[0]),
]
DtypeOption = Annotated[
    Dtype | None,
    typer.Option("--dtype", help="Convert the model and real-valued inputs.", rich_help_panel=_MODEL[0]),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Move model and batch there: cuda, cuda:1, mps; by default the batch goes where the model is.",
        rich_help_panel=_MODEL[0],
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="SHAPE",
        help="Random input of this shape, batch first: 32,1,28,28. Whole numbers: 8,128:int64:50257 "
        "(below 50257). By keyword: mask=8,128:bool. Repeat it for several inputs.",
        rich_help_panel=_MODEL[1],
    ),
]
Batch = Annotated[
    Path | None,
    typer.Option(
        "--batch",
        metavar="FILE",
        help="A real batch, .pt or .npz: a tensor, a tuple of arguments or a dict of keyword arguments; "
        "an entry named y, target, targets, label or labels is the target.",
        rich_help_panel=_MODEL[1],
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="NAME",
        help="cross-entropy, nll, mse, bce (on logits), or MODULE:FUNCTION on the output, or on output and labels; "
        "by default a fixed random direction of the output.",
        rich_help_panel=_MODEL[1],
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="Form of the result.", rich_help_panel=_MODEL[2])]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Write the result there, whole or not at all.",
        rich_help_panel=_MODEL[2],
    ),
]
