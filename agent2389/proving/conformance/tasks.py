"""Checks of what becomes of tasks: envelopes, duplicates, errors, chains."""

import json
import uuid
from collections.abc import Callable
from typing import Any

from agent2389.proving.conformance.bench import Bench, Task
from agent2389.proving.conformance.model import answer_to
from agent2389.proving.conformance.report import Finding, failed, not_observed, passed
from agent2389.proving.conformance.requirements import requirement
from agent2389.wire.topics import protocol_input, protocol_status

DEEPEST = 16
UNICODE = "é 漢 😀"


def complaint(answer: dict[str, Any] | None, task: Task, what: str) -> str | None:
    """What is wrong with the answer to a good task, or ``None``."""
    if answer is None:
        return f"{what} was not answered in time"
    if "error" in answer:
        return f"{what} was answered by the error {str(answer['error'])[:160]}"
    if not isinstance(answer.get("response"), str):
        return f"the response to {what} is not a string"
    if str(answer.get("task_id")).lower() != task.document["task_id"].lower():
        return f"the response to {what} names another task_id"
    return None


def code_of(answer: dict[str, Any] | None) -> str | None:
    """The error code of an answer."""
    error = (answer or {}).get("error")
    return str(error.get("code")) if isinstance(error, dict) else None


@requirement("FR-001", "any two conforming implementations work together over MQTT")
async def fr_001(bench: Bench) -> Finding:
    """Envelopes as writers in other languages produce them: all mean the same."""
    spellings: dict[str, Callable[[dict[str, Any]], str]] = {
        "an envelope in another key order": lambda document: json.dumps(
            dict(reversed(document.items())), separators=(",", ":")
        ),
        "a pretty-printed envelope": lambda document: json.dumps(document, indent=4).replace("\n", "\r\n"),
        "an envelope in raw UTF-8": lambda document: json.dumps(document, ensure_ascii=False),
        "an envelope with escaped characters": lambda document: json.dumps(document).replace("/", "\\/"),
        "an envelope with unknown fields": lambda document: json.dumps(document | {"x-vendor": {"a": [1]}}),
    }
    for what, spell in spellings.items():
        task = bench.task(input={"text": UNICODE})
        if problem := complaint(await bench.ask(task, spell(task.document).encode()), task, what):
            return failed(problem)
    return passed(f"{len(spellings)} spellings of an envelope were understood and answered")


@requirement("FR-005", "retained messages on the input topic are ignored")
async def fr_005(bench: Bench) -> Finding:
    """A task that was retained before the agent subscribed must leave no trace. Starts the agent."""
    if bench.subject is None:
        return not_observed("only an agent that the kit starts receives a message marked as retained")
    task = bench.task()
    await bench.send(task, retain=True)
    await bench.start()
    served = await bench.settled()
    await bench.send_bytes(b"", retain=True)
    if answers := bench.answers(task):
        return failed(f"the retained task was answered: {str(answers[0])[:160]}")
    if not served:
        return failed("after a retained message the agent did not answer a live task")
    return passed("a task retained before the start was not answered, a live one after it was")


@requirement("FR-006", "topics are canonicalised before they are compared")
async def fr_006(bench: Bench) -> Finding:
    """The envelope spells its topic with runs of slashes and a slash at the end."""
    for spelled in (f"//control//agents/{bench.agent_id}/input/", f"control/agents/{bench.agent_id}/input"):
        task = bench.task(topic=spelled)
        if problem := complaint(await bench.ask(task), task, f"a task with topic {spelled}"):
            return failed(problem)
    return passed("envelopes whose topic is spelled in other ways were taken")


@requirement("FR-007", "the task envelope has its fields and types")
async def fr_007(bench: Bench) -> Finding:
    """Allowed values are taken, a task_id that is no UUID is not."""
    wish = bench.task().document["instruction"]
    good: dict[str, dict[str, Any]] = {
        "an envelope without instruction": {"instruction": None, "input": {"text": wish}},
        "an envelope whose input is a string": {"input": "The lamp is green."},
        "an envelope whose input is an object": {"input": {"lamp": {"colour": "green"}}},
    }
    for what, changes in good.items():
        task = bench.task(**changes)
        if problem := complaint(await bench.ask(task), task, what):
            return failed(problem)
    bad = bench.task(task_id="conformance-is-no-uuid")
    await bench.send(bad)
    await bench.settled()
    if any("response" in answer for answer in bench.answers(bad)):
        return failed("a task whose task_id is no UUID was processed")
    return passed("null instruction, string and object input were taken; a task_id that is no UUID was not")


@requirement("FR-008", "status has agent_id, status, timestamp; unknown fields are ignored")
async def fr_008(bench: Bench) -> Finding:
    """Every status the agent published, and its calm about strange statuses of others."""
    statuses = bench.statuses()
    if not statuses:
        return failed("no status was published")
    for item in statuses:
        status = item.read()
        if status is None:
            return failed("a status is no JSON object")
        if status.get("agent_id") != bench.agent_id:
            return failed(f"agent_id is {status.get('agent_id')!r} on the topic of {bench.agent_id!r}")
        if status.get("status") not in ("available", "unavailable"):
            return failed(f"status is {status.get('status')!r}")
        if not isinstance(status.get("timestamp"), str):
            return failed("timestamp is missing")
    odd = {"load": "very", "capabilities": {"a": 1}, "unknown": [{"deep": [None]}]}
    await bench.announce_peer(protocol_status(bench.peer_id), odd)
    await bench.announce_peer(protocol_status(bench.peer_id), {})
    if not await bench.settled():
        return failed("after a status with unknown fields the agent did not answer")
    return passed(f"{len(statuses)} statuses have their fields; another agent's odd status did no harm")


@requirement("FR-010", "duplicates of recent task ids are discarded without processing")
async def fr_010(bench: Bench) -> Finding:
    """The same envelope three times, once after the answer: one answer, no error."""
    task = bench.task()
    await bench.send(task)
    await bench.send(task)
    if problem := complaint(await bench.answer(task), task, "a task that was sent twice"):
        return failed(problem)
    await bench.send(task)
    await bench.settled()
    answers = bench.answers(task)
    responses = [answer for answer in answers if "response" in answer]
    if len(responses) != 1:
        return failed(f"three deliveries of one task were answered {len(responses)} times")
    if bench.strict and len(answers) != 1:
        return failed(f"a duplicate was answered by {str(answers[-1])[:160]} instead of silence")
    return passed("three deliveries of one task, one answer")


@requirement("FR-011", "invalid input never crashes; the error goes to the conversation when it is known")
async def fr_011(bench: Bench) -> Finding:
    """What is unreadable is survived; what has a conversation is answered there."""
    conversation_id = bench.task().conversation_id
    for payload in (
        b"{not json",
        b"\xff\xfe\x00",
        b"[1, 2, 3]",
        b"null",
        b"[" * 50_000,
        json.dumps({"conversation_id": conversation_id}).encode(),
    ):
        await bench.send_bytes(payload)
    incomplete = bench.task()
    incomplete.document.pop("input")
    wrong = bench.task(instruction={"not": "a string"})
    for task, what in (
        (incomplete, "an envelope without input"),
        (wrong, "an instruction that is an object"),
    ):
        answer = await bench.ask(task)
        if answer is None and not bench.strict:
            continue
        if code_of(answer) != "invalid_input":
            return failed(f"{what} was answered by {str(answer)[:160]}, not by the error invalid_input")
    if not await bench.settled():
        return failed("after invalid input the agent did not answer a good task")
    return passed("eight invalid messages: errors in their conversations, and the next task was served")


@requirement("FR-013", "a pipeline deeper than 16 is answered by pipeline_depth_exceeded")
async def fr_013(bench: Bench) -> Finding:
    """A chain of seventeen tasks, the first one included."""
    chain = None
    for _ in range(DEEPEST):
        chain = bench.link(next=chain)
    task = bench.task(next=chain)
    code = code_of(await bench.ask(task))
    if bench.forwarded(task):
        return failed(f"a pipeline of {DEEPEST + 1} tasks was processed")
    allowed = ("pipeline_depth_exceeded",) if bench.strict else ("pipeline_depth_exceeded", "invalid_input")
    if code not in allowed:
        return failed(f"a pipeline of {DEEPEST + 1} tasks was answered by the error {code}")
    return passed(f"a pipeline of {DEEPEST + 1} tasks was answered by {code}")


@requirement("FR-014", "the nine steps: foreign topics are discarded, next gets the answer as its input")
async def fr_014(bench: Bench) -> Finding:
    """A task for another topic is silent; a chain brings the answer to the next agent."""
    stray = bench.task(topic=protocol_input(bench.peer_id))
    await bench.send(stray)
    task = bench.task(next=bench.link(input={"text": "this is replaced"}))
    await bench.send(task)
    envelope = await bench.until_forwarded(task)
    if envelope is None:
        return failed("the next agent of a chain got nothing")
    if problem := _link_problem(bench, task, envelope):
        return failed(problem)
    await bench.settled()
    if any("response" in answer for answer in bench.answers(task)):
        return failed("an agent in the middle of a chain published a response of its own")
    if bench.strict and bench.answers(stray):
        return failed("a task whose topic names another agent was answered")
    return passed("a task for another topic was discarded; the next agent got the answer as its input")


def _link_problem(bench: Bench, task: Task, envelope: dict[str, Any]) -> str | None:
    given = envelope.get("input")
    kept = given == {"text": "this is replaced"}
    if kept and bench.strict:
        return "the next agent got the envelope's own input, not the answer"
    told = bench.model is not None and bench.model.asked(task.token)
    if told and not kept and answer_to(task.token) not in str(given):
        return f"the next agent got {str(given)[:100]!r}, not the answer"
    if envelope.get("instruction") != "Confirm.":
        return "the next agent did not get its instruction"
    try:
        uuid.UUID(str(envelope.get("task_id")))
    except ValueError:
        return "the task_id of the next task is no UUID"
    return None


@requirement("NFR-003", "messages up to 256 KB")
async def nfr_003(bench: Bench) -> Finding:
    """A task just below the limit is served; nothing the agent says is above it."""
    room = 262_144 - len(json.dumps(bench.task().document)) - 64
    task = bench.task(input={"text": ("A line of a long document. " * (room // 27))})
    size = len(json.dumps(task.document))
    if problem := complaint(await bench.ask(task), task, f"a task of {size} bytes"):
        return failed(problem)
    if over := [item for item in bench.said() if len(item.payload) > 262_144]:
        return failed(f"a message on {over[0].topic} has {len(over[0].payload)} bytes")
    return passed(f"a task of {size} bytes was answered; no message of the agent is larger than 262144")
