"""Hostile and broken replies from the corpus: each comes to what was expected, and never shows the key."""

import asyncio
import json
import runpy
import traceback
from collections import Counter
from typing import Any

import pytest

from agent2389.errors import Agent2389Error, ModelFailed
from agent2389.llm.endpoint import EndpointModel
from agent2389.llm.messages import Reply, Request, Role, Schema, Turn
from agent2389.telemetry.logs import configure_logging
from tests.support.model_forms import FORMS, Form, model_for, whole
from tests.support.model_server import Answer, ModelServer, model_server
from tests.support.structure import ROOT

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* is not a valid :UserWarning"),
    # The SDKs check their own types when they hand an answer on; what they find is not for us.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]
CORPUS = ROOT / "tests" / "corpus" / "provider_replies"
CANARY = "cnry-7Qx2mVb9Lr4Tz8"
MANY = {"{LONG}": "L" * 20_000, "{BRACKETS}": "[" * 100_000, "{DIGITS}": "9" * 20_000}
NAMED = Schema(
    "named",
    {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    },
)


def cases(file: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CORPUS / f"{file}.json").read_text())
    return found


FILES = sorted(path.stem for path in CORPUS.glob("*.json"))


def filled(text: str) -> str:
    for word, meaning in {"{KEY}": CANARY, **MANY}.items():
        text = text.replace(word, meaning)
    return text


def answer_of(case: dict[str, Any]) -> Answer:
    if "bytes" in case:
        body = bytes.fromhex(case["bytes"])
    elif "json" in case:
        body = filled(json.dumps(case["json"])).encode()
    else:
        body = filled(case.get("text", "")).encode("utf-8", "surrogatepass") * case.get("repeat", 1)
    return Answer(
        status=case.get("status", 200),
        body=body,
        content_type=case.get("content_type", "application/json"),
        headers={name: filled(value) for name, value in case.get("headers", {}).items()},
        cut=case.get("cut", False),
    )


async def outcome(model: EndpointModel, request: Request, stream: bool) -> Reply | BaseException:
    try:
        async with asyncio.timeout(20):
            if not stream:
                return await model.answer(request)
            last = [chunk async for chunk in model.stream(request)][-1]
            return last.reply or AssertionError("the last piece carries no reply")
    except Exception as error:
        return error


def mismatch(case: dict[str, Any], found: Reply | BaseException) -> str:
    """Empty when ``found`` is what the case expects."""
    expect = case["expect"]
    if "failure" in expect:
        if not isinstance(found, ModelFailed):
            return f"no failure: {str(found)[:300]!r}"
        seen: dict[str, Any] = {name: getattr(found, name) for name in expect["failure"]}
        return "" if seen == expect["failure"] else f"{seen} instead of {expect['failure']}"
    if not isinstance(found, Reply):
        return f"no reply: {type(found).__name__} {str(found)[:300]}"
    wanted = json.loads(filled(json.dumps(expect["reply"])))
    calls = wanted.get("calls")
    if isinstance(calls, list):
        seen_calls = [[call.name, json.loads(call.arguments)] for call in found.tool_calls]
    else:
        seen_calls = len(found.tool_calls)  # type: ignore[assignment]
    everything = {
        "text": found.text,
        "calls": seen_calls,
        "names": [call.name for call in found.tool_calls],
        "finished": found.finished.value,
        "usage": [found.usage.input, found.usage.output, found.usage.cached],
        "structured": found.structured,
        "distinct_ids": len({call.id for call in found.tool_calls if call.id}) == len(found.tool_calls),
    }
    wrong = {name: everything[name] for name, value in wanted.items() if everything[name] != value}
    return f"{str(wrong)[:300]} in place of {str(wanted)[:300]}" if wrong else ""


def leak(found: Reply | BaseException, printed: str) -> str:
    """Where the key shows, empty when nowhere. The case where a key is the text itself is masked, too."""
    shown = {"printed": printed}
    if isinstance(found, BaseException):
        shown["message"] = f"{found} {found!r} {found.args}"
        shown["traceback"] = "".join(traceback.format_exception(found))
        if isinstance(found, Agent2389Error):
            shown["hint"] = str(found.hint)
    else:
        shown["reply"] = repr(found)
    return ", ".join(name for name, text in shown.items() if CANARY in text)


def told_apart(case: dict[str, Any], form: Form) -> list[bool]:
    """The modes to run: whole, streamed."""
    if form.name not in case["providers"]:
        return []
    return {"both": [False, True], "whole": [False], "stream": [True]}[case["mode"]]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("file", FILES)
async def test_every_reply_comes_to_what_is_expected(
    file: str, form: Form, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging("debug", "json")
    turns = (Turn(role=Role.USER, text="How deep is it?"),)
    problems = []
    ran = 0
    async with model_server() as server:
        model = model_for(form, server.url, key=CANARY)
        for case in cases(file):
            for stream in told_apart(case, form):
                ran += 1
                server.will(answer_of(case))
                request = Request(turns=turns, schema=NAMED if case.get("schema") else None, timeout=15.0)
                found = await outcome(model, request, stream)
                problem = mismatch(case, found)
                if shown := leak(found, "".join(capfd.readouterr())):
                    problem += f" SHOWS THE KEY in {shown}"
                if problem:
                    problems.append(f"{case['name']}{' (stream)' if stream else ''}: {problem}")
                problems.extend(await still_well(server, form, model, case["name"]))
        await model.close()
    assert not problems, f"{len(problems)} of {ran}:\n" + "\n".join(problems)


async def still_well(server: ModelServer, form: Form, model: EndpointModel, name: str) -> list[str]:
    """The next good answer comes through on the same model."""
    server.will(whole(form, "well"))
    found = await outcome(model, Request(turns=(Turn(role=Role.USER, text="And now?"),)), stream=False)
    return [] if isinstance(found, Reply) and found.text == "well" else [f"after {name}: {found!r}"]


def test_the_corpus_is_large_and_made_by_its_script() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_provider_replies.py"))
    files = script["files"]()
    assert sorted(files) == FILES
    for name, made in files.items():
        assert (CORPUS / f"{name}.json").read_text() == script["rendered"](made), name
    reaching = Counter(provider for file in FILES for case in cases(file) for provider in case["providers"])
    assert all(reaching[form.name] >= 200 for form in FORMS), reaching
    names = [(file, *case["providers"], case["name"], case["mode"]) for file in FILES for case in cases(file)]
    assert len(set(names)) == len(names)
