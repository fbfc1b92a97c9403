"""Checks of what an agent must not do or tell: tools, topics, identifiers, error texts, times."""

import json
import re
from datetime import datetime
from typing import Any

from agent2389.proving.conformance.bench import Bench, Task
from agent2389.proving.conformance.packets import Publish
from agent2389.proving.conformance.report import Finding, failed, not_observed, passed
from agent2389.proving.conformance.requirements import requirement
from agent2389.wire.topics import canonical_topic, protocol_input

NO_MODEL = "the kit's model was not asked; the agent must use LLM_BASE_URL or OPENAI_BASE_URL"
NO_TOOLS = "the agent offers its model no tools"
AGENT_ID = re.compile(r"[a-zA-Z0-9._-]+")
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")
TIME_FIELDS = ("timestamp", "last_updated", "started_at")
COMPLAINT = re.compile(
    r"error|invalid|reject|refus|required|missing|unknown|unexpected|not allowed|no such|fail|must|"
    r"additional|not in|no tool|not available",
    re.IGNORECASE,
)
DETAIL = re.compile(
    r"Traceback|File \"|\bline \d+, in\b|[A-Za-z]:\\|"
    r"(?<![\w:/])/(?!control/|conversations/)(?:[\w.-]+/)+[\w.-]+|"  # paths, but not topics
    r"\bat [\w.]+\([\w.]+:\d+\)|\.(?:py|rs|go|js|java):\d+|conformance-internal-detail"
)


def tool_results(bench: Bench, task: Task) -> list[str]:
    """What the agent told its model of the tools it called for a task."""
    assert bench.model is not None
    found = []
    for request in bench.model.asked(task.token):
        for turn in request.get("messages", ()):
            if turn.get("role") == "tool":
                content = turn.get("content")
                found.append(content if isinstance(content, str) else json.dumps(content))
    return found


@requirement("FR-009", "tools are described, executed with valid parameters, and their result is fed back")
async def fr_009(bench: Bench) -> Finding:
    """The kit's model calls the agent's first tool."""
    task = bench.task("tool")
    answer = await bench.ask(task)
    if bench.model is None or not bench.model.asked(task.token):
        return not_observed(NO_MODEL)
    tools = bench.model.asked(task.token)[0].get("tools") or []
    if not tools:
        return not_observed(NO_TOOLS)
    for tool in tools:
        if problem := _description_problem(tool):
            return failed(problem)
    if not tool_results(bench, task):
        return failed("the model called a tool and never heard its result")
    if answer is None or "response" not in answer:
        return failed(f"after a tool call the task was answered by {str(answer)[:160]}")
    return passed(f"{len(tools)} tools are described; one was called, its result fed back, the task answered")


def _description_problem(tool: dict[str, Any]) -> str | None:
    function = tool.get("function")
    if not isinstance(function, dict) or not function.get("name"):
        return "a tool has no name"
    if not function.get("description"):
        return f"the tool {function['name']} has no description"
    parameters = function.get("parameters")
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        return f"the parameters of {function['name']} are no JSON Schema of an object"
    return None


@requirement("NFR-005", "topics are validated; tool calls against an allow-list, parameters against schemas")
async def nfr_005(bench: Bench) -> Finding:
    """Wildcards and slashes in ids and topics; a tool that was not offered; parameters against the schema."""
    hostile = [
        bench.task(conversation_id=f"kit-{bench.run_id}/#"),
        bench.task(conversation_id=f"kit-{bench.run_id}/../../control"),
        bench.task(next=bench.link(topic=protocol_input("+"))),
        bench.task(next=bench.link(topic=f"{protocol_input(bench.peer_id)}/#")),
    ]
    for task in hostile:
        await bench.send(task)
    if not await bench.settled():
        return failed("after topics with wildcards the agent did not answer")
    if stray := [topic for topic in _published(bench) if set(topic) & set("+#") or "/../" in topic]:
        return failed(f"the agent published on {stray[0]}")
    return await _tool_calls(bench)


async def _tool_calls(bench: Bench) -> Finding:
    unknown = bench.task("no-tool")
    await bench.ask(unknown)
    if bench.model is None or not bench.model.asked(unknown.token):
        return passed("no topic with a wildcard was published (tool calls were not seen: " + NO_MODEL + ")")
    told = tool_results(bench, unknown)
    if told and not COMPLAINT.search(told[0]):
        return failed(f"a tool that was never offered seems to have run: {told[0][:100]!r}")
    if not bench.model.asked(unknown.token)[0].get("tools"):
        return passed("no topic with a wildcard, no call of an unknown tool (the agent has no tools)")
    invalid = bench.task("bad-tool")
    await bench.ask(invalid)
    told = tool_results(bench, invalid)
    if told and not COMPLAINT.search(told[0]):
        return failed(f"a tool ran with parameters against its schema: {told[0][:100]!r}")
    if not await bench.settled():
        return failed("after a wrong tool call the agent did not answer")
    return passed("no topic with a wildcard; an unknown tool and invalid parameters were refused")


def _published(bench: Bench) -> list[str]:
    heard = [item.topic for item in bench.said()]
    if bench.tap is None:
        return heard
    return heard + [packet.topic for _, packet in bench.tap.packets(Publish)]


@requirement("RULE-001", "agent ids match [a-zA-Z0-9._-]+")
async def rule_001(bench: Bench) -> Finding:
    """The agent's own id, and a chain whose next agent has a bad one."""
    if not AGENT_ID.fullmatch(bench.agent_id):
        return failed(f"the agent's id is {bench.agent_id!r}")
    bad = f"bad id {bench.run_id}!"
    task = bench.task(next=bench.link(topic=protocol_input(bad)))
    await bench.send(task)
    await bench.settled()
    spoken = [*_published(bench), *(item.topic for item in bench.heard)]
    if any(bad in canonical_topic(topic) for topic in spoken):
        return failed(f"the agent forwarded a task to the agent id {bad!r}")
    return passed("the agent's id matches, and a task for a bad id was not forwarded")


@requirement("RULE-002", "error messages hold no stack traces, file paths or implementation details")
async def rule_002(bench: Bench) -> Finding:
    """Errors of a failing model, and every other error of the run."""
    task = bench.task("refuse")
    answer = await bench.ask(task)
    errors = bench.errors()
    for error in errors:
        message = str(error.get("message"))
        if found := DETAIL.search(message):
            return failed(f"an error message holds {found[0][:60]!r}")
        if len(message) > 500 and bench.strict:
            return failed(f"an error message has {len(message)} characters")
    if bench.model is not None and bench.model.asked(task.token) and "error" not in (answer or {}):
        return failed("a task whose model refused was not answered by an error")
    if not errors:
        return not_observed("the agent published no error")
    return passed(f"{len(errors)} error messages hold no trace, path or internal detail")


@requirement("RULE-003", "timestamps are RFC 3339 with Z")
async def rule_003(bench: Bench) -> Finding:
    """Every timestamp in what the agent said."""
    times = [
        (item.topic, str(value))
        for item in bench.said()
        for field, value in (item.read() or {}).items()
        if field in TIME_FIELDS and value is not None
    ]
    for topic, text in times:
        match = TIME.fullmatch(text)
        if match is None or (bench.strict and match[2] != "Z"):
            return failed(f"{text!r} on {topic}")
        try:
            datetime.fromisoformat(_microseconds(text))
        except ValueError:
            return failed(f"{text!r} on {topic} is no time")
    if not times:
        return failed("nothing that the agent said carries a timestamp")
    return passed(f"{len(times)} timestamps end with Z")


def _microseconds(text: str) -> str:
    """Nanoseconds are RFC 3339 too; the parser here knows six digits."""
    return re.sub(r"(\.\d{6})\d+", r"\1", text)
