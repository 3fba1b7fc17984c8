"""The meta device, optimizers and operators of ours without torch's compiler, whose import takes a second or two of every launch and of every rank.

torch imports it where a function that must not be compiled is first called. Most of what Python computes for tensors without data are such functions;
so are parts of optimizers, and operators that are written in Python.
"""

import inspect
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from types import FunctionType, MethodType
from typing import Any, TypeVar

import torch

MARK = "__dynamo_disable"  # where such a function keeps what the compiler makes of it
COMPILER = "torch._dynamo"
SomeOptimizer = TypeVar("SomeOptimizer", bound=torch.optim.Optimizer)


def start_meta_device() -> None:
    """Lets the functions of the meta device run as they are until somebody imports the compiler. A torch without these private parts imports it."""
    try:
        import torch._refs
    except ImportError:
        return
    start_functions(vars(torch._refs).values())


def start_operators(*operators: object) -> None:
    """The same for operators that `torch.library.custom_op` has made."""
    for operator in operators:
        start_functions(getattr(operator, "_backend_fns", {}).values())


def start_optimizers() -> None:
    """The same for the functions of torch's optimizers, before one is made. Each needs `start_step`, too."""
    start_functions(vars(torch.optim.Optimizer).values())


def start_step(optimizer: SomeOptimizer) -> SomeOptimizer:
    """The optimizer, whose `step` does the same for itself. torch's own would import the compiler, and then tell it nothing."""
    whole, alone = type(optimizer).step, inspect.unwrap(type(optimizer).step)
    try:
        from torch.optim.optimizer import _use_grad_for_differentiable
    except ImportError:
        return optimizer
    wrapper = _use_grad_for_differentiable(lambda self: None).__code__
    if optimizer.defaults.get("differentiable") or all(function.__code__ is not wrapper for function in layers(whole)):
        return optimizer
    with_hooks = type(optimizer).profile_hook_step(torch.no_grad()(alone))

    @wraps(whole)
    def step(self: SomeOptimizer, *args: Any, **kwargs: Any) -> Any:
        return (whole if COMPILER in sys.modules else with_hooks)(self, *args, **kwargs)

    optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
    return optimizer


def layers(function: Any) -> Iterable[FunctionType]:
    """A function and those that it wraps."""
    while isinstance(function, FunctionType):
        yield function
        function = getattr(function, "__wrapped__", None)


def start_functions(functions: Iterable[object]) -> None:
    """Lets those of the functions that must not be compiled, and those that they wrap, run as they are until somebody imports the compiler."""
    try:
        from torch._compile import _disable_dynamo
    except ImportError:
        return
    kept = _disable_dynamo(lambda: None).__code__  # of every function that it makes; see torch/_compile.py
    for function in list(functions):
        while isinstance(function, FunctionType):
            inner = inspect.getclosurevars(function).nonlocals.get("fn")  # what a decorator of torch's wraps
            if inner is not None and function.__code__ is kept:
                vars(inner).setdefault(MARK, _until_it_is_there(inner))
            function = inner


def _until_it_is_there(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if COMPILER not in sys.modules:
            return function(*args, **kwargs)
        kept = torch._dynamo.disable(function, recursive=True, wrapping=False)  # type: ignore[no-untyped-call]  # as torch._disable_dynamo does
        setattr(function, MARK, kept)
        return kept(*args, **kwargs)

    return call
