"""Watching what goes over the broker: the protocol's topics and the mesh's own."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from agent2389.broker.port import Delivery
from agent2389.cli import output
from agent2389.cli.named_broker import connected
from agent2389.config.process import load_process
from agent2389.telemetry.logs import configure_logging
from agent2389.wire.status import timestamp
from agent2389.wire.topics import (
    MeshTopics,
    conversation_filter,
    parse_conversation_agent,
    parse_last_level,
    parse_protocol_agent,
    protocol_digests,
    protocol_input_filter,
    protocol_status_filter,
)

COMPACT_CHARACTERS = 120


class Mode(StrEnum):
    """Which messages."""

    ALL = "all"
    AVAILABILITY = "availability"
    INPUTS = "inputs"
    CONVERSATIONS = "conversations"
    PROGRESS = "progress"
    MESH = "mesh"


class Format(StrEnum):
    """How a message is shown; ``json`` is one object a line."""

    PRETTY = "pretty"
    COMPACT = "compact"
    JSON = "json"


async def monitor(
    broker: str | None,
    *,
    mode: Mode,
    form: Format,
    agent: str | None,
    count: int | None,
    seconds: float | None,
) -> None:
    """Print messages as they come, until ``count`` of them or ``seconds`` are over."""
    configure_logging("critical")
    show = _SHOW[form]
    seen: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def on_message(delivery: Delivery) -> None:
        record = record_of(delivery)
        if delivery.payload and agent in (None, record["agent_id"]):
            seen.put_nowait(record)

    async with connected(broker, "monitor") as connection:
        for topic_filter in filters_of(mode, load_process().tenant):
            await connection.subscribe(topic_filter, on_message, qos=1)
        output.say("listening; Ctrl-C ends it")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                shown = 0
                while count is None or shown < count:
                    output.data(show(await seen.get()))
                    shown += 1


def filters_of(mode: Mode, tenant: str) -> tuple[str, ...]:
    """The topic filters of a mode."""
    by_mode: dict[Mode, tuple[str, ...]] = {
        Mode.AVAILABILITY: (protocol_status_filter(),),
        Mode.INPUTS: (protocol_input_filter(),),
        Mode.CONVERSATIONS: (conversation_filter(),),
        Mode.PROGRESS: protocol_digests("+"),
        Mode.MESH: (MeshTopics(tenant).everything_filter(),),
    }
    if mode is Mode.ALL:
        return tuple(topic_filter for filters in by_mode.values() for topic_filter in filters)
    return by_mode[mode]


def record_of(delivery: Delivery) -> dict[str, Any]:
    """One message as ``json`` shows it; a payload that is no JSON is shown as text."""
    try:
        payload: Any = json.loads(delivery.payload)
    except (ValueError, RecursionError):
        payload = delivery.payload.decode("utf-8", "replace")
    return {
        "at": timestamp(),
        "kind": _kind_of(delivery.topic),
        "topic": delivery.topic,
        "agent_id": parse_protocol_agent(delivery.topic) or parse_conversation_agent(delivery.topic),
        "retained": delivery.retained,
        "qos": delivery.qos,
        "payload": payload,
    }


def _kind_of(topic: str) -> str:
    if parse_conversation_agent(topic) is not None:
        return "conversation"
    if parse_protocol_agent(topic) is not None:
        return {"status": "availability"}.get(parse_last_level(topic), parse_last_level(topic))
    return "mesh"


def _pretty(record: dict[str, Any]) -> str:
    flags = " retained" if record["retained"] else ""
    body = record["payload"]
    text = body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
    shown = "\n".join(f"    {line}" for line in _printable(text).splitlines())
    return f"{record['at'][11:23]}  {record['kind']}{flags}  {_printable(record['topic'])}\n{shown}"


def _compact(record: dict[str, Any]) -> str:
    body = record["payload"]
    said = _said(body) if isinstance(body, dict) else str(body)
    line = " ".join(_printable(said).split())
    cut = line if len(line) <= COMPACT_CHARACTERS else line[: COMPACT_CHARACTERS - 1] + "…"
    who = record["agent_id"] or _printable(record["topic"])
    return f"{record['at'][11:23]}  {record['kind']:12} {who:20} {cut}"


def _said(body: dict[str, Any]) -> str:
    """The one thing of a message that a person looks for."""
    for key in ("response", "status", "instruction", "error", "message", "state"):
        if body.get(key) is not None:
            value = body[key]
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return json.dumps(body, ensure_ascii=False)


def _printable(text: str) -> str:
    """Whoever may publish must not be able to steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "·" for char in text)


_SHOW: dict[Format, Callable[[dict[str, Any]], str]] = {
    Format.PRETTY: _pretty,
    Format.COMPACT: _compact,
    Format.JSON: lambda record: json.dumps(record, ensure_ascii=False),
}
