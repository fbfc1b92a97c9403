"""Sending one task of the 2389 protocol over MQTT, and waiting for its answer."""

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from agent2389.broker.port import Delivery, Message
from agent2389.cli import output
from agent2389.cli.chains import agent_links, instruction_of
from agent2389.cli.jobs import NotSucceeded, WaitTimedOut
from agent2389.cli.named_broker import connected
from agent2389.errors import InputRefused
from agent2389.telemetry.logs import configure_logging
from agent2389.wire.envelope import Answer, read_answer
from agent2389.wire.names import is_identifier
from agent2389.wire.topics import conversation_replies, parse_last_level, protocol_input


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the options of ``submit`` ask for in this form."""

    agent: str
    message: str
    next_agents: Sequence[str] = ()
    conversation_id: str | None = None
    input: Any = None
    tool: str | None = None
    tool_params: Any = None


async def submit_message(
    broker: str | None, wanted: Wanted, *, wait: bool, timeout: float, as_json: bool
) -> None:
    """Publish the envelope; with ``wait`` print what the last agent of the chain answers."""
    configure_logging("critical")
    envelope = envelope_of(wanted)
    last = (wanted.agent, *wanted.next_agents)[-1]
    answers: asyncio.Queue[tuple[str, Answer]] = asyncio.Queue()

    async def on_answer(delivery: Delivery) -> None:
        answer = read_answer(delivery.payload)
        if answer is not None and answer.task_id == envelope["task_id"]:
            answers.put_nowait((parse_last_level(delivery.topic), answer))

    async with connected(broker, "submit") as connection:
        if wait:
            await connection.subscribe(conversation_replies(envelope["conversation_id"]), on_answer)
        await connection.publish(Message(envelope["topic"], json.dumps(envelope).encode()))
        told = {key: envelope[key] for key in ("task_id", "conversation_id", "topic")}
        if wait:
            output.say(f"task {envelope['task_id']} in conversation {envelope['conversation_id']}")
            await _print_answer(answers, last, timeout, told=told, as_json=as_json)
        elif as_json:
            output.document(told)
        else:
            output.data(envelope["task_id"])
            output.say(f"the answer comes in conversation {envelope['conversation_id']}; --wait shows it")


async def _print_answer(
    answers: "asyncio.Queue[tuple[str, Answer]]",
    last: str,
    timeout: float,
    *,
    told: dict[str, Any],
    as_json: bool,
) -> None:
    """An error of any agent ends the wait, a response only that of the last one."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                agent, answer = await answers.get()
                if answer.code is not None or agent == last:
                    break
    except TimeoutError:
        raise WaitTimedOut(
            f"{last} did not answer within {timeout:g} s",
            hint="see who is there: agent2389 monitor --mode availability",
        ) from None
    if as_json:
        error = {"code": answer.code, "message": answer.text} if answer.code else None
        output.document(
            {**told, "agent_id": agent, "response": None if error else answer.text, "error": error}
        )
    elif answer.code is None:
        output.data(answer.text)
    if answer.code is not None:
        raise NotSucceeded(f"{agent} answered {answer.code}: {answer.text}")


def envelope_of(wanted: Wanted) -> dict[str, Any]:
    """A version 1 envelope. Raises ``InputRefused`` for a name that is no agent id."""
    for name in (wanted.agent, *wanted.next_agents):
        if not is_identifier(name):
            raise InputRefused("invalid", f"{name!r} is no agent id")
    if wanted.conversation_id is not None and not is_identifier(wanted.conversation_id):
        raise InputRefused("invalid", f"{wanted.conversation_id!r} is no conversation id")
    return {
        "task_id": str(uuid.uuid4()),
        "conversation_id": wanted.conversation_id or f"submit-{int(time.time())}-{uuid.uuid4().hex[:6]}",
        "topic": protocol_input(wanted.agent),
        "instruction": instruction_of(wanted.message, wanted.tool, wanted.tool_params),
        "input": wanted.input if wanted.input is not None else _input_of(wanted),
        "next": agent_links(wanted.next_agents, wanted.message),
    }


def _input_of(wanted: Wanted) -> dict[str, Any]:
    given: dict[str, Any] = {"message": wanted.message}
    if wanted.tool is not None:
        given |= {"tool": wanted.tool, "parameters": wanted.tool_params or {}}
    return given
