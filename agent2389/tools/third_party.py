"""Toolkits of other packages: found by entry point, loaded only when an agent's file names them."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import structlog

from agent2389.errors import ConfigurationError
from agent2389.tools.port import Tool, Toolkit, ToolSettings

GROUP = "agent2389.toolkits"
"""Each entry: the toolkit's name = a callable that takes ``ToolSettings`` and returns a ``Toolkit``."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MEMBERS = ("missing", "open", "close", "tools")

log = structlog.get_logger(__name__)


@cache
def installed() -> Mapping[str, EntryPoint]:
    """Toolkit name → entry point of every package installed beside this one; loads none."""
    return {point.name: point for point in entry_points(group=GROUP)}


def origin_of(point: EntryPoint) -> str:
    """The package that brings it, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def make_third_party(name: str, settings: ToolSettings) -> Toolkit | None:
    """The toolkit ``name`` of another package; ``None`` when none is installed.

    Raises ``ConfigurationError`` when its package is broken. Its code runs with the agent's rights.
    """
    point = installed().get(name)
    if point is None:
        return None
    origin = origin_of(point)
    try:
        make: Callable[[ToolSettings], Any] = point.load()
        toolkit = make(settings)
    except ConfigurationError:
        raise
    except Exception as error:
        # Anything may be raised by code that is not ours; its text may hold a path of this machine.
        log.exception("a toolkit of another package cannot be made", toolkit=name, package=origin)
        raise ConfigurationError(f"toolkit {name} of {origin} is broken: {type(error).__name__}") from None
    for member in _MEMBERS:
        if not callable(getattr(toolkit, member, None)):
            raise ConfigurationError(f"toolkit {name} of {origin} is no toolkit: it lacks {member}()")
    if getattr(toolkit, "name", None) != name:
        raise ConfigurationError(f"toolkit {name} of {origin} is no toolkit: its name is another one")
    found: Toolkit = toolkit
    return found


def check_tools(toolkit: Toolkit) -> None:
    """Raise ``ConfigurationError`` when what an open toolkit offers is not usable."""
    offered: tuple[Any, ...] = toolkit.tools()
    for tool in offered:
        if not isinstance(tool, Tool) or not _NAME.fullmatch(tool.name):
            raise ConfigurationError(f"toolkit {toolkit.name} offers something that is no tool")
        if tool.parameters.get("type") != "object":
            raise ConfigurationError(
                f"tool {tool.name} of {toolkit.name}: its parameters are no object schema"
            )
