"""Loading late what few need, and not what packages merely look for: idle agents stay small."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any


def later(module: str, name: str) -> Callable[..., Any]:
    """The class or function ``name`` of ``module``, which is imported at the first call."""

    def call(*arguments: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **named)

    return call


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Let ``try: import NAME`` of another package find nothing, unless it is loaded already.

    Only for packages that take an absent NAME as an answer. Afterwards NAME can be imported as ever.
    """
    hidden = [name for name in names if name not in sys.modules]
    # None is how Python marks a module as absent.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
