"""The two ways to patch moto: `extend` adds what a class lacks, `wrap` corrects what it has.

Each patch is a function whose docstring says what moto does wrong and what a user sees of it:

    @extend(SageMakerResponse)
    def delete_feature_group(self: SageMakerResponse) -> EmptyResult:
        '''moto has no DeleteFeatureGroup: the group is never destroyed.'''

    @wrap(SageMakerResponse, "create_endpoint")
    def need_a_configuration(original: Original, self: SageMakerResponse) -> ActionResult:
        '''moto …'''
        return original(self)

An API action is a method of the service's Response class, named as the action in snake case. Both decorators fail at
import when moto has changed: `extend` when the class has the method by now, `wrap` when it has it no longer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from moto.core.base_backend import BaseBackend

Function = TypeVar("Function", bound=Callable[..., Any])
Original = Callable[..., Any]


def extend(cls: type) -> Callable[[Function], Function]:
    """Adds the function to the class as a method."""

    def decorate(function: Function) -> Function:
        _check(cls, function, absent=True)
        setattr(cls, function.__name__, function)
        return function

    return decorate


def wrap(cls: type, name: str) -> Callable[[Function], Function]:
    """Replaces a method by `function(original, self, …)`, or a property by `function(original value, self)`."""

    def decorate(function: Function) -> Function:
        _check(cls, function, name)
        original = getattr(cls, name)
        if isinstance(original, property):
            read = original.fget
            assert read is not None
            setattr(cls, name, property(lambda self: function(read(self), self), original.fset))
            return function

        @functools.wraps(original)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return function(original, self, *args, **kwargs)

        setattr(cls, name, method)
        return function

    return decorate


def _check(cls: type, function: Callable[..., Any], name: str | None = None, absent: bool = False) -> None:
    what = f"{cls.__module__}.{cls.__qualname__}.{name or function.__name__}"
    if not function.__doc__:
        raise TypeError(f"the patch of {what} has no docstring with its reason")
    if hasattr(cls, name or function.__name__) == absent:
        raise TypeError(f"moto {'now has' if absent else 'no longer has'} {what}: look at this patch again")


def memory(backend: BaseBackend, name: str) -> dict[Any, Any]:
    """A dict of ours that lives and dies with moto's backend: one for each account, region and name."""
    found: dict[Any, Any] = backend.__dict__.setdefault(f"_localaws_{name}", {})
    return found
