"""The chain that a submission brings along: which forms its ``next`` may take."""

from typing import Any

from agent2389.errors import InputRefused
from agent2389.wire.names import is_capability, is_identifier
from agent2389.wire.receipts import Code
from agent2389.wire.topics import parse_protocol_agent


def check_route(link: Any) -> None:
    """``null``, a list of capabilities, or an object naming a topic, a capability or an agent.

    Raises ``InputRefused(invalid)`` with the place of the first link that is none of these.
    """
    place = "next"
    while link is not None:
        match link:
            case list():
                _check_names(link, place)
                return
            case {"topic": str() as topic} if parse_protocol_agent(topic) is not None:
                pass
            case {"capability": str() as name} if is_capability(name.lower()):
                pass
            case {"agent": str() as name} if is_identifier(name):
                pass
            case _:
                raise InputRefused(
                    Code.INVALID,
                    f"{place} must be null, a list of capabilities, or an object that names "
                    "a capability, an agent or the topic of an agent's input",
                )
        link = link.get("next")
        place += ".next"


def _check_names(names: list[Any], place: str) -> None:
    for number, name in enumerate(names):
        if not isinstance(name, str) or not is_capability(name.lower()):
            raise InputRefused(
                Code.INVALID, f"{place}[{number}] must be a capability: [a-z0-9][a-z0-9_-]{{0,63}}"
            )
