"""Where the model is while it runs: the module at work, the line of its code, caches switched off."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType, MethodType, TracebackType
from typing import Any

import torch
from torch import nn

from firstlight.capture.census import Census, census
from firstlight.capture.shared import Shared
from firstlight.capture.transforms import opened


def unwrapped(model: nn.Module) -> nn.Module:
    """The module behind ``torch.compile``'s wrapper; any other module itself."""
    while not isinstance(model, torch.jit.ScriptModule) and isinstance(
        inner := vars(model).get("_modules", {}).get("_orig_mod"), nn.Module
    ):
        model = inner
    return model


class Scope:
    """The module that is running now. Its hooks sit on the modules of one model, never on all of torch."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parts = census(model)
        self.path = ""
        self.module_type = type(model).__name__
        self._stack: list[tuple[str, str]] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Watch every module's calls; all is as before on the way out, whatever happened inside.

        A module gets a forward of its own, which costs a tenth of two hooks. It gets hooks instead where it has
        hooks, whose operations count as its own, where calling it is no plain call of its class's forward, and
        in a model that copies its modules on every call.
        """
        handles: list[Any] = []
        wrapped: list[dict[str, Any]] = []
        replicated = any(isinstance(m, nn.DataParallel) for _, m in self.parts.modules)
        kinds: dict[type[nn.Module], bool] = {}
        try:
            for path, module in self.parts.modules:
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # takes no hooks; nothing inside it can be seen
                kind = type(module)
                if kind not in kinds:
                    kinds[kind] = _plain_kind(kind)
                if replicated or not kinds[kind] or not _plain(module):
                    enter, leave = self._hooks(path, type(module).__name__)
                    handles.append(module.register_forward_pre_hook(enter, prepend=True))
                    handles.append(module.register_forward_hook(leave, always_call=True))
                else:
                    # A bound method, so that a copy of the module made by copy.deepcopy runs its own entries.
                    vars(module)["forward"] = MethodType(self._watched(path, type(module)), module)
                    wrapped.append(vars(module))
            yield
        finally:
            for attributes in wrapped:
                attributes.pop("forward", None)
            for handle in handles:
                handle.remove()

    def _watched(self, path: str, kind: type[nn.Module]) -> Callable[..., Any]:
        forward, module_type = kind.forward, kind.__name__

        def watched(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
            before = self.path, self.module_type
            self.path, self.module_type = path, module_type
            try:
                return forward(module, *args, **kwargs)
            finally:
                self.path, self.module_type = before

        vars(watched)["__wrapped__"] = forward  # for `inspect.signature`
        return watched

    def _hooks(self, path: str, module_type: str) -> tuple[Callable[..., None], Callable[..., None]]:
        stack = self._stack

        def enter(_module: nn.Module, _args: Any) -> None:
            stack.append((self.path, self.module_type))
            self.path = path
            self.module_type = module_type

        def leave(_module: nn.Module, _args: Any, _result: Any) -> None:
            if stack:
                self.path, self.module_type = stack.pop()

        return enter, leave


def _plain_kind(kind: type[nn.Module]) -> bool:
    """Whether calling a module of this class may do nothing but run its forward; `_plain` looks at the module."""
    forward = inspect.getattr_static(kind, "forward", None)
    return kind.__call__ is nn.Module.__call__ and isinstance(forward, FunctionType)


def _plain(module: nn.Module) -> bool:
    """Whether calling `module`, of a plain kind, does nothing but run the forward of its class."""
    attributes = vars(module)
    return (
        "forward" not in attributes
        and attributes.get("_compiled_call_impl") is None
        and not any(attributes.get(name) for name in _HOOK_TABLES)
    )


_HOOK_TABLES = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


_UNCOMPILED = Shared(lambda: torch.compiler.set_stance("force_eager"))


@contextmanager
def as_written(parts: Census) -> Iterator[None]:
    """Run compiled parts of the model uncompiled, mapped ones as loops, all without key-value caches; put them back.

    Hugging Face models read ``config.use_cache``; the caches would turn up as outputs that no loss reads.
    """
    with ExitStack() as stack:
        if "torch._dynamo.eval_frame" in sys.modules:
            stack.enter_context(_UNCOMPILED.entered())
        stack.enter_context(opened())
        for config in _configurations(parts):
            stack.callback(setattr, config, "use_cache", config.use_cache)
            config.use_cache = False
        yield


def _configurations(parts: Census) -> list[Any]:
    found: dict[int, Any] = {}
    for _, module in parts.modules:
        config = vars(module).get("config")
        if config is not None and getattr(config, "use_cache", False) is True:
            found[id(config)] = config
    return list(found.values())


def place_of(error: BaseException, model: nn.Module) -> tuple[str, str]:
    """(module path, source line) at which `error` left the model's own code; "" for what is not known."""
    paths = {id(module): path for path, module in model.named_modules()}
    path = line = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in paths:
            path = paths[id(owner)]
        if _kind_of_file(frame.f_code.co_filename) == 0:
            line = f"{os.path.basename(frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return path, line


_TORCH_DIR = os.path.dirname(torch.__file__) + os.sep
_CAPTURE_DIR = os.path.dirname(os.path.abspath(__file__)) + os.sep
# A call that the recorder opened runs below its frames.
_STEPPED_OVER = frozenset({"record.py", "scope.py", "calls.py", "custom.py", "mapped.py"})
# File name -> how to go on at a frame of it: "file.py:" for user code, None to step over (torch, the recorder),
# "" for the rest of the capture, beyond which no frame is the model's.
_FILES: dict[str, str | None] = {}
_NOT_SEEN = "?"


def source_line() -> str:
    """Innermost line outside torch and the capture as "file.py:12"; "" where there is none."""
    frame = sys._getframe(2)
    while frame is not None:
        filename = frame.f_code.co_filename
        prefix = _FILES.get(filename, _NOT_SEEN)
        if prefix is not None:
            if prefix is not _NOT_SEEN:
                return f"{prefix}{frame.f_lineno}" if prefix else ""
            _FILES[filename] = _prefix(filename)
            continue
        frame = frame.f_back
    return ""


def _prefix(filename: str) -> str | None:
    return (f"{os.path.basename(filename)}:", None, "")[_kind_of_file(filename)]


def _kind_of_file(filename: str) -> int:
    """0 for user code, 1 for what is stepped over, 2 for the rest of the capture."""
    if filename.startswith(_TORCH_DIR) or filename.startswith("<frozen"):
        return 1
    if filename.startswith(_CAPTURE_DIR):
        return 1 if os.path.basename(filename) in _STEPPED_OVER else 2
    return 0
