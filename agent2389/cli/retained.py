"""Publishing a message, and what a broker keeps: list and clear retained topics."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from agent2389.broker.dispatch import refuse_unsendable
from agent2389.broker.port import Connection, Delivery, Message, PublishRefused
from agent2389.cli import output
from agent2389.cli.named_broker import connected
from agent2389.config.process import load_process
from agent2389.errors import InputRefused, NotAllowed
from agent2389.telemetry.logs import configure_logging
from agent2389.wire.names import new_uuid7
from agent2389.wire.topics import MeshTopics, conversation_filter, protocol_topics_filter

ECHO_SECONDS = 5.0
PREVIEW_CHARACTERS = 60


async def publish(
    broker: str | None, topic: str, message: str | None, *, file: Path | None, retain: bool, qos: int
) -> None:
    """Publish the text, the file, or what comes on standard input."""
    configure_logging("critical")
    payload = await asyncio.to_thread(_payload, message, file)
    sent = Message(topic, payload, qos=qos, retain=retain)
    try:
        refuse_unsendable(sent)
    except PublishRefused as error:
        # No right would help: what was typed is wrong.
        raise InputRefused("invalid", str(error), hint=error.hint) from None
    async with connected(broker, "publish") as connection:
        await connection.publish(sent)
    output.say(f"{len(payload)} bytes published on {topic}{' (retained)' if retain else ''}")


def _payload(message: str | None, file: Path | None) -> bytes:
    if message is not None and file is not None:
        raise InputRefused("invalid", "give either a message or --file")
    if message is not None:
        return message.encode()
    if file is None:
        if sys.stdin.isatty():
            raise InputRefused(
                "invalid", "there is no message", hint="give it as an argument, --file or a pipe"
            )
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputRefused("invalid", f"{file}: {error.strerror}") from None


async def list_retained(broker: str | None, filters: Sequence[str], *, as_json: bool) -> None:
    """Topic, size and beginning of every retained message under ``filters``."""
    configure_logging("critical")
    async with connected(broker, "retained") as connection:
        found = await _read(connection, filters)
    if as_json:
        output.document([{"topic": topic, "bytes": len(body), "text": _begun(body)} for topic, body in found])
        return
    output.table([(topic, len(body), _begun(body)) for topic, body in found], ("topic", "bytes", "begins"))


async def clear_retained(
    broker: str | None, filters: Sequence[str], *, assume_yes: bool, as_json: bool
) -> None:
    """Clear every retained message under ``filters``; topics that are not this mesh's are asked about."""
    configure_logging("critical")
    own = MeshTopics(load_process().tenant).everything_filter().removesuffix("#")
    async with connected(broker, "retained") as connection:
        topics = [topic for topic, _ in await _read(connection, filters)]
        others = [topic for topic in topics if not topic.startswith(own)]
        if others and not assume_yes:
            _ask(others)
        for topic in topics:
            await connection.publish(Message(topic, b"", retain=True))
    if as_json:
        output.document(topics)
    else:
        for topic in topics:
            output.data(topic)
        output.say(f"{len(topics)} cleared")


def _ask(others: Sequence[str]) -> None:
    for topic in others[:10]:
        output.say(topic)
    what = f"{len(others)} of these topics belong to others, who rely on them"
    if not sys.stdin.isatty():
        raise NotAllowed(what, hint="--yes clears them all the same")
    if not typer.confirm(f"{what}. Clear them?", err=True):
        raise NotAllowed("nothing was cleared")


async def _read(connection: Connection, filters: Sequence[str]) -> list[tuple[str, bytes]]:
    """Retained messages, complete once an echo of our own has come after them."""
    topics = MeshTopics(load_process().tenant)
    wanted = tuple(filters) or (topics.everything_filter(), protocol_topics_filter(), conversation_filter())
    found: dict[str, bytes] = {}
    echoed = asyncio.Event()
    probe = topics.probe("retained", new_uuid7())

    async def on_message(delivery: Delivery) -> None:
        if delivery.retained and delivery.payload:
            found[delivery.topic] = delivery.payload

    async def on_probe(delivery: Delivery) -> None:  # noqa: ARG001 - the handler's signature
        echoed.set()

    await connection.subscribe(probe, on_probe, qos=0)
    for topic_filter in wanted:
        await connection.subscribe(topic_filter, on_message, qos=0)
    await connection.publish(Message(probe, b"after", qos=0))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ECHO_SECONDS):
            await echoed.wait()
    return sorted(found.items())


def _begun(body: bytes) -> str:
    text = body[: PREVIEW_CHARACTERS * 4].decode("utf-8", "replace")
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= PREVIEW_CHARACTERS else line[: PREVIEW_CHARACTERS - 1] + "…"
