"""The meta device without torch's compiler, whose import takes more than a second of every launch.

torch imports it where a function that must not be compiled is first called. Most of what Python computes for tensors without data are such functions.
"""

import inspect
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

MARK = "__dynamo_disable"  # where such a function keeps what the compiler makes of it


def start_meta_device() -> None:
    """Lets the functions of the meta device run as they are until somebody imports the compiler. A torch without these private parts imports it."""
    try:
        import torch._refs
        from torch._compile import _disable_dynamo
    except ImportError:
        return
    kept = _disable_dynamo(lambda: None).__code__  # of every function that it makes; see torch/_compile.py
    for function in vars(torch._refs).values():
        while isinstance(function, FunctionType):
            inner = inspect.getclosurevars(function).nonlocals.get("fn")  # what a decorator of torch's wraps
            if inner is not None and function.__code__ is kept:
                vars(inner).setdefault(MARK, _until_it_is_there(inner))
            function = inner


def _until_it_is_there(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        kept = torch._dynamo.disable(function, recursive=True, wrapping=False)  # type: ignore[no-untyped-call]  # as torch._disable_dynamo does
        setattr(function, MARK, kept)
        return kept(*args, **kwargs)

    return call
