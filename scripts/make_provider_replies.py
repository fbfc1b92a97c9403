"""Writes tests/corpus/provider_replies/*.json: hostile and broken replies, each with what must come of it.

A case says what the endpoint does (status, headers, body as ``json`` or ``text``, ``repeat`` of it, ``cut``)
and what must be seen: ``{"failure": {...}}`` or ``{"reply": {...}}``, compared field by field. ``{KEY}`` is
replaced by the key that the client sent, ``{LONG}``, ``{BRACKETS}`` and ``{DIGITS}`` by very many of them. ``mode`` is whole or stream, ``schema`` asks for a structure.
"""

import copy
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "corpus" / "provider_replies"
ALL = ["openai", "anthropic", "google"]
RETRY: dict[str, Any] = {"failure": {"retryable": True}}
FINAL: dict[str, Any] = {"failure": {"retryable": False}}
TRANSIENT = {408, 409, 425, 429}
DEEP = 100_000


def case(
    name: str, expect: dict[str, Any], providers: list[str] = ALL, mode: str = "both", **does: Any
) -> dict:
    return {"name": name, "providers": providers, "mode": mode, **does, "expect": expect}


# what HTTP can do ------------------------------------------------------------------


def transport() -> list[dict]:
    found = []
    statuses = [300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413]
    statuses += [
        414,
        415,
        417,
        418,
        421,
        422,
        423,
        424,
        425,
        426,
        428,
        429,
        431,
        451,
        500,
        501,
        502,
        503,
        504,
    ]
    statuses += [505, 507, 508, 511, 520, 521, 522, 523, 524, 525, 529, 530, 599]
    for status in statuses:
        retryable = status >= 500 or status in TRANSIENT
        expect = {"failure": {"retryable": retryable, "status": status}}
        found.append(
            case(
                f"status {status} that echoes the key",
                expect,
                status=status,
                json={"error": {"message": "{KEY}"}},
            )
        )
    found.append(
        case(
            "redirect with the key in its address",
            FINAL,
            status=307,
            headers={"Location": "http://127.0.0.1:9/{KEY}"},
            text="",
        )
    )
    pauses: list[tuple[str, float | None]] = [
        ("0", 0.0),
        ("5", 5.0),
        (" 5 ", 5.0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("-5", 0.0),
        ("99999999", 3600.0),
        ("inf", None),
        ("nan", None),
        ("-inf", None),
        ("abc", None),
        ("5,10", None),
        ("0x10", None),
        ("5 seconds", None),
        ("9" * 400, None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("Fri, 99 Foo 2026 99:99:99 GMT", None),
        ("{KEY}", None),
        ("1" + "0" * 30, 3600.0),
    ]
    for text, seconds in pauses:
        expect = {"failure": {"retryable": True, "status": 429, "retry_after": seconds}}
        found.append(
            case(
                f"Retry-After: {text[:32]}",
                expect,
                status=429,
                headers={"Retry-After": text},
                json={"error": {}},
            )
        )
    for name, body in {
        "empty": "",
        "white space": " \n\t",
        "null": "null",
        "true": "true",
        "number": "7",
        "text": '"hello"',
        "empty object": "{}",
        "empty list": "[]",
        "list of lists": "[[[]]]",
        "NaN": "NaN",
        "half an object": '{"choices": [',
        "HTML": "<html><body>{KEY}</body></html>",
        "two objects": "{}{}",
        "single quotes": "{'a': 1}",
        "comment": "/* x */ {}",
        "byte order mark": "\ufeff{}",
        "control characters": '{"a": "\x01\x02"}',
        "key as body": "{KEY}",
        "keys twice": '{"choices": [], "choices": null, "content": 1, "content": 2}',
    }.items():
        found.append(case(f"body: {name}", RETRY, mode="whole", text=body))
        found.append(
            case(f"stream: {name}", RETRY, mode="stream", text=body, content_type="text/event-stream")
        )
    for status in (201, 202, 203, 204, 206):
        found.append(case(f"status {status} without a body", RETRY, mode="whole", status=status, text=""))
    for encoding in ("gzip", "br", "deflate", "zstd", "gzip, gzip"):
        found.append(
            case(
                f"compressed with {encoding}",
                RETRY,
                headers={"Content-Encoding": encoding},
                text="\x1f\x8b rubbish",
            )
        )
    for name, opening in {"lists": "[", "objects": '{"a":', "mixed": '[{"a":'}.items():
        found.append(case(f"very deep {name}", RETRY, mode="whole", text=opening, repeat=DEEP))
        text = f"data: {opening}"
        found.append(
            case(
                f"very deep {name} in a stream",
                RETRY,
                mode="stream",
                text=text,
                content_type="text/event-stream",
            )
        )
    found.append(case("a number of 20,000 digits", RETRY, mode="whole", text="9", repeat=20_000))
    found.append(case("17 MB of white space", RETRY, mode="whole", text=" " * 1024, repeat=17 * 1024))
    found.append(
        case(
            "65 MB of comments",
            RETRY,
            mode="stream",
            text=": " + "ping" * 2048 + "\n\n",
            repeat=65 * 128,
            content_type="text/event-stream",
        )
    )
    found.append(case("cut before the first byte", RETRY, text="", cut=True))
    found.append(case("cut in the body", RETRY, text='{"choices": [{"mess', cut=True))
    found.append(case("not UTF-8", RETRY, mode="whole", bytes="ff fe fd 7b 7d"))
    found.append(case("UTF-16", RETRY, mode="whole", bytes="ff fe 7b 00 7d 00"))
    return found


# one field of a good answer replaced ------------------------------------------------

VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "minus one": -1,
    "huge": 1e308,
    "empty text": "",
    "text": "x",
    "empty list": [],
    "list of lists": [[]],
    "empty object": {},
    "object": {"x": 1},
    "nul": "a\x00b",
    "surrogate": "a\ud800b",
    "long": "{LONG}",
}

GOOD: dict[str, Any] = {
    "openai": {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {
                    "role": "assistant",
                    "content": "fine",
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "depth", "arguments": "{}"}}
                    ],
                },
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
    },
    "anthropic": {
        "id": "x",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "stop_reason": "end_turn",
        "content": [
            {"type": "text", "text": "fine"},
            {"type": "tool_use", "id": "c1", "name": "depth", "input": {}},
        ],
        "usage": {"input_tokens": 4, "output_tokens": 2, "cache_read_input_tokens": 1},
    },
    "google": {
        "candidates": [
            {
                "finishReason": "STOP",
                "content": {
                    "role": "model",
                    "parts": [{"text": "fine"}, {"functionCall": {"id": "c1", "name": "depth", "args": {}}}],
                },
            }
        ],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "cachedContentTokenCount": 1},
        "modelVersion": "m",
    },
}
WITHOUT_ANSWER: dict[str, list[str]] = {
    # Fields whose replacement by anything leaves no answer at all; the others only lose themselves.
    "openai": ["choices"],
    "anthropic": ["content"],
    "google": [],
}
PATHS: dict[str, list[str]] = {
    "openai": [
        "choices",
        "choices.0.message.content",
        "choices.0.message.tool_calls",
        "choices.0.message.tool_calls.0.id",
        "choices.0.message.tool_calls.0.function.arguments",
        "choices.0.message.tool_calls.0.function.name",
        "choices.0.finish_reason",
        "usage",
        "usage.prompt_tokens",
        "usage.prompt_tokens_details",
        "model",
    ],
    "anthropic": [
        "content",
        "content.0.text",
        "content.1.id",
        "content.1.name",
        "content.1.input",
        "stop_reason",
        "usage",
        "usage.input_tokens",
        "usage.cache_read_input_tokens",
        "model",
    ],
    "google": [
        "candidates",
        "candidates.0.content",
        "candidates.0.content.parts",
        "candidates.0.content.parts.0.text",
        "candidates.0.content.parts.1.functionCall.name",
        "candidates.0.content.parts.1.functionCall.args",
        "candidates.0.finishReason",
        "usageMetadata",
        "usageMetadata.promptTokenCount",
        "modelVersion",
    ],
}


def replaced(document: Any, path: str, value: Any) -> Any:
    document = copy.deepcopy(document)
    place = document
    *folders, last = path.split(".")
    for folder in folders:
        place = place[int(folder) if folder.isdigit() else folder]
    place[int(last) if last.isdigit() else last] = value
    return document


def fields(provider: str) -> list[dict]:
    found = []
    for path in PATHS[provider]:
        for name, value in VALUES.items():
            document = replaced(GOOD[provider], path, value)
            expect = field_outcome(provider, path, name)
            found.append(case(f"{path} is {name}", expect, [provider], "whole", json=document))
    return found


def field_outcome(provider: str, path: str, name: str) -> dict[str, Any]:
    """OpenAI's and Anthropic's SDKs take any type, so one broken field costs no more than itself; Google's
    checks every type, so a wrong one makes the answer unusable.
    """
    if path in WITHOUT_ANSWER[provider] and not (
        path == "content" and name in ("empty list", "list of lists")
    ):
        return RETRY
    if provider == "google":
        return google_outcome(path, name)
    usage = [5, 2, 1]
    if "usage" in path:
        return {"reply": {"text": "fine"}}
    if path.endswith(("message.content", "0.text")):
        text = {"text": "x", "nul": "a\ufffdb", "surrogate": "a?b", "long": "{LONG}"}.get(name, "")
        return {"reply": {"text": text, "usage": usage}}
    if path == "content":
        return {"reply": {"text": "", "calls": 0}}
    if path.endswith("tool_calls"):
        return {"reply": {"text": "fine", "calls": 0, "usage": usage}}
    return {"reply": {"text": "fine", "calls": 1, "usage": usage}}


NUMBERS = {"true", "zero", "minus one", "huge"}
TEXTS = {"empty text", "text", "nul", "surrogate", "long"}
LISTS = {"empty list", "list of lists"}


def google_outcome(path: str, name: str) -> dict[str, Any]:
    if path in ("candidates", "candidates.0.content", "candidates.0.content.parts"):
        if path == "candidates":
            return RETRY
        empty = {"null", "empty object"} | ({"object"} if path.endswith("content") else set())
        if path.endswith("parts"):
            empty = {"null", "empty list"}
        return {"reply": {"text": "", "calls": 0}} if name in empty else RETRY
    if path == "modelVersion" or path.endswith(("text", "name")):
        return {"reply": {}} if name in TEXTS | {"null"} else RETRY
    if path.endswith("args"):
        return {"reply": {"calls": 1}} if name in {"null", "empty object", "object"} else RETRY
    if path.endswith("finishReason"):
        # The SDK looks the word up among its own and cannot do that with half a character.
        readable = (TEXTS | {"null"}) - {"surrogate"}
        return {"reply": {"text": "fine", "calls": 1}} if name in readable else RETRY
    if path.endswith("promptTokenCount"):
        return {"reply": {"text": "fine"}} if name in {"null", "true", "zero", "minus one"} else RETRY
    return {"reply": {"text": "fine"}} if name in {"null", "empty object", "object"} else RETRY


# streams ---------------------------------------------------------------------------


def sse(*events: Any) -> str:
    lines = []
    for event in events:
        if isinstance(event, dict) and "type" in event:
            lines.append(f"event: {event['type']}\n")
        lines.append(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n")
    return "".join(lines)


def stream(name: str, expect: dict[str, Any], provider: str, text: str, **more: Any) -> dict:
    return case(name, expect, [provider], "stream", text=text, content_type="text/event-stream", **more)


def openai_delta(delta: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }


def openai_streams() -> list[dict]:
    text, stop = openai_delta({"content": "fine"}), openai_delta({}, "stop")

    def call(**fields: Any) -> dict[str, Any]:
        return openai_delta({"tool_calls": [fields]})

    one = {"name": "depth", "arguments": '{"of": "lake"}'}
    two = {"name": "depth", "arguments": '{"of": "sea"}'}
    good = {"reply": {"text": "fine", "calls": 0}}
    calls = {"reply": {"calls": [["depth", {"of": "lake"}], ["depth", {"of": "sea"}]], "distinct_ids": True}}
    single = {"reply": {"calls": [["depth", {"of": "lake"}]]}}
    table: list[tuple[str, dict, str]] = [
        ("no [DONE]", good, sse(text, stop)),
        ("two [DONE]", good, sse(text, stop, "[DONE]", "[DONE]")),
        ("[DONE] before the end", RETRY, sse(text, "[DONE]", stop)),
        ("no finish reason", RETRY, sse(text, "[DONE]")),
        ("text after the end", {"reply": {"text": "finefine"}}, sse(text, stop, text, "[DONE]")),
        (
            "comments and empty lines between",
            good,
            ": hi\n\n\n\n" + sse(text) + ": hi\n\n" + sse(stop, "[DONE]"),
        ),
        ("CRLF", good, sse(text, stop, "[DONE]").replace("\n", "\r\n")),
        ("no space after the colon", good, sse(text, stop, "[DONE]").replace("data: ", "data:")),
        ("unknown fields", good, "id: 7\nretry: 1\nfoo: bar\n" + sse(text, stop, "[DONE]")),
        ("an event that is no JSON", RETRY, sse(text, "{nonsense", stop, "[DONE]")),
        ("an event that is a list", good, sse([], text, stop, "[DONE]")),
        ("an event that is null", good, sse("null", text, stop, "[DONE]")),
        ("choices is text", RETRY, sse({"id": "x", "choices": "many"}, "[DONE]")),
        ("delta is text", good, sse(openai_delta("hello"), text, stop, "[DONE]")),
        ("delta is null", good, sse(openai_delta(None), text, stop, "[DONE]")),
        ("content is a number", good, sse(openai_delta({"content": 7}), text, stop, "[DONE]")),
        ("content in parts", good, sse(openai_delta({"content": [{"type": "text", "text": "fine"}]}), stop)),
        (
            "usage of text",
            {"reply": {"text": "fine"}},
            sse(openai_delta({"content": "fine"}, usage="x"), stop),
        ),
        (
            "negative usage",
            {"reply": {"usage": [0, 0, 0]}},
            sse(text, openai_delta({}, "stop", usage={"prompt_tokens": -5, "completion_tokens": -1})),
        ),
        (
            "the key in the text",
            {"reply": {"text": "said ********"}},
            sse(openai_delta({"content": "said {KEY}"}), stop),
        ),
        ("an error inside", RETRY, sse(text, {"error": {"message": "{KEY}", "code": 502}})),
        (
            "an error by its code",
            {"failure": {"retryable": False}},
            sse({"error": {"message": "{KEY}", "code": "context_length_exceeded"}}),
        ),
        (
            "refusal",
            {"reply": {"text": "I will not.", "finished": "refused"}},
            sse(openai_delta({"refusal": "I will not."}), stop),
        ),
        ("calls without ids", calls, sse(call(index=0, function=one), call(index=1, function=two), stop)),
        (
            "calls with one id",
            calls,
            sse(call(index=0, id="a", function=one), call(index=1, id="a", function=two), stop),
        ),
        (
            "calls all at index 0",
            calls,
            sse(call(index=0, id="a", function=one), call(index=0, id="b", function=two), stop),
        ),
        ("calls without index", calls, sse(call(id="a", function=one), call(id="b", function=two), stop)),
        ("calls without anything but functions", calls, sse(call(function=one), call(function=two), stop)),
        (
            "name repeated in every piece",
            single,
            sse(
                call(index=0, id="a", function={"name": "depth", "arguments": '{"of": '}),
                call(index=0, id="a", function={"name": "depth", "arguments": '"lake"}'}),
                stop,
            ),
        ),
        (
            "arguments already an object",
            single,
            sse(call(index=0, function={"name": "depth", "arguments": {"of": "lake"}}), stop),
        ),
        (
            "arguments never sent",
            {"reply": {"calls": [["depth", {}]]}},
            sse(call(index=0, function={"name": "depth"}), stop),
        ),
        (
            "arguments before the name",
            single,
            sse(
                call(index=0, function={"arguments": '{"of": "lake"}'}),
                call(index=0, function={"name": "depth"}),
                stop,
            ),
        ),
        ("function is null", {"reply": {"calls": 1}}, sse(call(index=0, id="a", function=None), stop)),
        ("an enormous index", single, sse(call(index=10**9, function=one), stop)),
        ("a negative index", single, sse(call(index=-1, function=one), stop)),
        (
            "a thousand calls",
            {"reply": {"calls": 128}},
            sse(*(call(index=n, function=one) for n in range(1000)), stop),
        ),
        (
            "half of the arguments",
            {"reply": {"calls": 1}},
            sse(call(index=0, function={"name": "depth", "arguments": '{"of": '}), stop),
        ),
        ("tool_calls is text", good, sse(openai_delta({"content": "fine", "tool_calls": "x"}), stop)),
    ]
    return [stream(f"stream: {name}", expect, "openai", text) for name, expect, text in table]


def anthropic_streams() -> list[dict]:
    start = {
        "type": "message_start",
        "message": {**GOOD["anthropic"], "content": [], "usage": {"input_tokens": 5}},
    }
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fine"}}
    close = {"type": "content_block_stop", "index": 0}
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
    stop = {"type": "message_stop"}

    def tool(index: Any, call_id: Any = "a", name: Any = "depth", whole: Any = None) -> dict[str, Any]:
        content = {"type": "tool_use", "id": call_id, "name": name, "input": {} if whole is None else whole}
        return {"type": "content_block_start", "index": index, "content_block": content}

    def arguments(index: Any, text: Any) -> dict[str, Any]:
        return {
            "type": "content_block_delta",
            "index": index,
            "delta": {"type": "input_json_delta", "partial_json": text},
        }

    good = {"reply": {"text": "fine", "usage": [5, 2, 0]}}
    lake = '{"of": "lake"}'
    single = {"reply": {"calls": [["depth", {"of": "lake"}]]}}
    table: list[tuple[str, dict, str]] = [
        ("as it should be", good, sse(start, block, text, close, delta, stop)),
        ("pings", good, sse(start, {"type": "ping"}, block, {"type": "ping"}, text, close, delta, stop)),
        ("no start", {"reply": {"text": "fine"}}, sse(block, text, close, delta, stop)),
        ("no block start", good, sse(start, text, delta, stop)),
        ("no block stop", good, sse(start, block, text, delta, stop)),
        ("no message_stop", RETRY, sse(start, block, text, close, delta)),
        ("only message_stop", {"reply": {"text": "", "calls": 0}}, sse(stop)),
        (
            "no stop reason",
            {"reply": {"text": "fine", "finished": "other"}},
            sse(start, block, text, close, stop),
        ),
        ("unknown events", good, sse(start, {"type": "surprise", "x": {"y": 1}}, block, text, delta, stop)),
        (
            "unknown block",
            good,
            sse(start, {**block, "content_block": {"type": "holo", "text": 7}}, text, delta, stop),
        ),
        ("unknown delta", good, sse(start, block, {**text, "delta": {"type": "holo"}}, text, delta, stop)),
        (
            "thoughts",
            good,
            sse(
                start,
                block,
                {**text, "delta": {"type": "thinking_delta", "thinking": "hm"}},
                text,
                delta,
                stop,
            ),
        ),
        ("delta is null", good, sse(start, block, {**text, "delta": None}, text, delta, stop)),
        ("delta is text", good, sse(start, block, {**text, "delta": "fine"}, text, delta, stop)),
        (
            "text is a number",
            good,
            sse(start, block, {**text, "delta": {"type": "text_delta", "text": 7}}, text, delta, stop),
        ),
        (
            "message is null",
            {"reply": {"text": "fine"}},
            sse({**start, "message": None}, block, text, delta, stop),
        ),
        ("an event that is no JSON", RETRY, "event: content_block_delta\ndata: {nonsense\n\n"),
        (
            "the key in the text",
            {"reply": {"text": "said ********"}},
            sse(start, {**text, "delta": {"type": "text_delta", "text": "said {KEY}"}}, delta, stop),
        ),
        (
            "overloaded inside",
            {"failure": {"retryable": True, "status": 529}},
            sse(start, {"type": "error", "error": {"type": "overloaded_error", "message": "{KEY}"}}),
        ),
        (
            "key refused inside",
            {"failure": {"retryable": False, "status": 401}},
            sse({"type": "error", "error": {"type": "authentication_error", "message": "{KEY}"}}),
        ),
        (
            "credit used up inside",
            {"failure": {"retryable": False, "status": 402}},
            sse({"type": "error", "error": {"type": "billing_error", "message": "{KEY}"}}),
        ),
        ("an error of an unknown type", RETRY, sse({"type": "error", "error": {"type": "{KEY}"}})),
        ("an error that is no JSON", RETRY, "event: error\ndata: {KEY}\n\n"),
        (
            "a call in pieces",
            single,
            sse(start, tool(0), arguments(0, lake[:5]), arguments(0, lake[5:]), delta, stop),
        ),
        ("a call in one piece", single, sse(start, tool(0, whole={"of": "lake"}), delta, stop)),
        (
            "two calls interleaved",
            {"reply": {"calls": [["depth", {"of": "lake"}], ["depth", {"of": "sea"}]]}},
            sse(
                start,
                tool(0),
                tool(1, "b"),
                arguments(1, '{"of": '),
                arguments(0, lake),
                arguments(1, '"sea"}'),
                delta,
                stop,
            ),
        ),
        (
            "calls with one id",
            {"reply": {"calls": 2, "distinct_ids": True}},
            sse(start, tool(0), tool(1), delta, stop),
        ),
        (
            "a call without id",
            {"reply": {"calls": 1, "distinct_ids": True}},
            sse(start, tool(0, None), delta, stop),
        ),
        ("a call without name", {"reply": {"calls": 1}}, sse(start, tool(0, "a", None), delta, stop)),
        ("a call without arguments", {"reply": {"calls": [["depth", {}]]}}, sse(start, tool(0), delta, stop)),
        ("arguments of no call", good, sse(start, arguments(9, lake), text, delta, stop)),
        (
            "a call cut by the limit",
            {"reply": {"calls": 1, "finished": "length"}},
            sse(
                start,
                tool(0),
                arguments(0, '{"of": '),
                {**delta, "delta": {"stop_reason": "max_tokens"}},
                stop,
            ),
        ),
        (
            "a thousand calls",
            {"reply": {"calls": 128}},
            sse(start, *(tool(n, f"i{n}") for n in range(1000)), delta, stop),
        ),
        ("index is text", single, sse(start, tool("0"), arguments("0", lake), delta, stop)),
        ("index is an object", {"reply": {"calls": 1}}, sse(start, tool({"a": 1}), delta, stop)),
        (
            "refused",
            {"reply": {"finished": "refused"}},
            sse(start, {**delta, "delta": {"stop_reason": "refusal"}}, stop),
        ),
        (
            "reason is an object",
            {"reply": {"finished": "other"}},
            sse(start, text, {**delta, "delta": {"stop_reason": {}}}, stop),
        ),
    ]
    return [stream(f"stream: {name}", expect, "anthropic", text) for name, expect, text in table]


def google_streams() -> list[dict]:
    def chunk(*parts: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}
        return {"candidates": [candidate], **more}

    def call(**function: Any) -> dict[str, Any]:
        return {"functionCall": function}

    text, stop = {"text": "fine"}, chunk(finish="STOP")
    good = {"reply": {"text": "fine"}}
    table: list[tuple[str, dict, str]] = [
        ("as it should be", good, sse(chunk(text), stop)),
        ("no finish reason", RETRY, sse(chunk(text))),
        ("nothing but the end", {"reply": {"text": ""}}, sse(stop)),
        ("no candidates", RETRY, sse({})),
        (
            "prompt blocked",
            {"reply": {"finished": "refused"}},
            sse({"promptFeedback": {"blockReason": "SAFETY"}}),
        ),
        ("answer blocked", {"reply": {"finished": "refused"}}, sse(chunk(text, finish="PROHIBITED_CONTENT"))),
        ("recitation", {"reply": {"finished": "refused"}}, sse(chunk(finish="RECITATION"))),
        ("malformed call", RETRY, sse(chunk(finish="MALFORMED_FUNCTION_CALL"))),
        ("length", {"reply": {"text": "fine", "finished": "length"}}, sse(chunk(text, finish="MAX_TOKENS"))),
        (
            "unknown reason",
            {"reply": {"text": "fine", "finished": "other"}},
            sse(chunk(text, finish="MOONLIGHT")),
        ),
        ("thoughts", good, sse(chunk({"text": "hm", "thought": True}, text), stop)),
        ("candidates is text", RETRY, sse({"candidates": "many"})),
        ("parts is text", RETRY, sse({"candidates": [{"content": {"parts": "x"}}]})),
        ("part without anything", good, sse(chunk({}, text), stop)),
        ("part of an unknown kind", good, sse(chunk(text, {"hologram": {"x": 1}}), stop)),
        (
            "call without id",
            {"reply": {"calls": [["depth", {"of": "lake"}]], "distinct_ids": True}},
            sse(chunk(call(name="depth", args={"of": "lake"})), stop),
        ),
        (
            "two calls without ids",
            {"reply": {"calls": 2, "distinct_ids": True}},
            sse(chunk(call(name="depth", args={}), call(name="depth", args={})), stop),
        ),
        (
            "call without arguments",
            {"reply": {"calls": [["depth", {}]]}},
            sse(chunk(call(name="depth")), stop),
        ),
        ("call without name", {"reply": {"calls": 1}}, sse(chunk(call(args={})), stop)),
        (
            "a thousand calls",
            {"reply": {"calls": 128}},
            sse(chunk(*(call(name="depth", args={}) for _ in range(1000))), stop),
        ),
        ("arguments as text", RETRY, sse(chunk(call(name="depth", args="{}")), stop)),
        ("an event that is no JSON", RETRY, sse(chunk(text), "{nonsense", stop)),
        (
            "an error inside",
            {"failure": {"retryable": True, "status": 503}},
            sse(chunk(text), {"error": {"code": 503, "message": "{KEY}", "status": "UNAVAILABLE"}}),
        ),
        ("an error of nonsense", RETRY, sse({"error": "{KEY}"})),
        (
            "the key in the text",
            {"reply": {"text": "said ********"}},
            sse(chunk({"text": "said {KEY}"}), stop),
        ),
        ("usage of nonsense", RETRY, sse(chunk(text, usageMetadata="x"))),
        (
            "negative usage",
            {"reply": {"usage": [0, 0, 0]}},
            sse(
                chunk(text, finish="STOP", usageMetadata={"promptTokenCount": -5, "candidatesTokenCount": -1})
            ),
        ),
        ("two candidates", good, sse({"candidates": [chunk(text, finish="STOP")["candidates"][0]] * 2})),
    ]
    return [stream(f"stream: {name}", expect, "google", text) for name, expect, text in table]


# what compatible servers do, and what structures come out as --------------------------


def deviations() -> list[dict]:
    def whole(message: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
        return {"choices": [{"message": message, "finish_reason": finish}], **more}

    def calls(*found: Any) -> dict[str, Any]:
        return {"role": "assistant", "content": None, "tool_calls": list(found)}

    lake, name = {"of": "lake"}, "depth"
    one = {"reply": {"calls": [["depth", lake]], "finished": "tool_calls", "distinct_ids": True}}
    table: list[tuple[str, dict, Any]] = [
        (
            "no id, no object, no created, no usage",
            {"reply": {"text": "fine", "usage": [4, 1, 0]}},
            whole({"content": "fine"}),
        ),
        ("arguments an object", one, whole(calls({"function": {"name": name, "arguments": lake}}))),
        (
            "arguments null",
            {"reply": {"calls": [["depth", {}]]}},
            whole(calls({"function": {"name": name, "arguments": None}})),
        ),
        (
            "arguments a list",
            {"reply": {"calls": [["depth", [1]]]}},
            whole(calls({"function": {"name": name, "arguments": [1]}})),
        ),
        (
            "arguments a number",
            {"reply": {"calls": [["depth", 7]]}},
            whole(calls({"function": {"name": name, "arguments": 7}})),
        ),
        (
            "finish reason stop with calls",
            one,
            whole(calls({"id": "a", "function": {"name": name, "arguments": '{"of": "lake"}'}})),
        ),
        (
            "finish reason absent",
            one,
            whole(calls({"id": "a", "function": {"name": name, "arguments": lake}}), None),
        ),
        (
            "finish reason tool_calls without calls",
            {"reply": {"text": "fine", "finished": "stop"}},
            whole({"content": "fine"}, "tool_calls"),
        ),
        (
            "ids twice",
            {"reply": {"calls": 2, "distinct_ids": True}},
            whole(calls(*[{"id": "a", "function": {"name": name, "arguments": "{}"}}] * 2)),
        ),
        (
            "ids are numbers",
            {"reply": {"calls": 1, "distinct_ids": True}},
            whole(calls({"id": 7, "function": {"name": name, "arguments": "{}"}})),
        ),
        (
            "function_call of old",
            one,
            whole({"content": None, "function_call": {"name": name, "arguments": lake}}, "function_call"),
        ),
        (
            "a call that is null",
            {"reply": {"text": "fine", "calls": 0}},
            whole({"content": "fine", "tool_calls": [None]}),
        ),
        (
            "a call of another type",
            {"reply": {"calls": 0}},
            whole(calls({"id": "a", "type": "custom", "custom": {"name": "x"}})),
        ),
        (
            "a name with spaces",
            {"reply": {"names": ["invalid_rm_-rf__"]}},
            whole(calls({"function": {"name": "rm -rf /", "arguments": "{}"}})),
        ),
        (
            "a name of 100,000 letters",
            {"reply": {"names": ["invalid_" + "L" * 56]}},
            whole(calls({"function": {"name": "{LONG}", "arguments": "{}"}})),
        ),
        (
            "the key as a name",
            {"reply": {"calls": 1}},
            whole(calls({"function": {"name": "{KEY}", "arguments": "{}"}})),
        ),
        (
            "the key in arguments",
            {"reply": {"calls": 1}},
            whole(calls({"function": {"name": name, "arguments": '{"of": "{KEY}"}'}})),
        ),
        ("the key as the model", {"reply": {"text": "fine"}}, whole({"content": "fine"}, model="{KEY}")),
        (
            "the key as the reason",
            {"reply": {"text": "fine", "finished": "other"}},
            whole({"content": "fine"}, "{KEY}"),
        ),
        (
            "the key as an id",
            {"reply": {"calls": 1}},
            whole(calls({"id": "{KEY}", "function": {"name": name, "arguments": "{}"}})),
        ),
        (
            "content in parts",
            {"reply": {"text": "fine day"}},
            whole({"content": [{"type": "text", "text": "fine "}, "day"]}),
        ),
        (
            "reasoning beside the answer",
            {"reply": {"text": "fine"}},
            whole({"content": "fine", "reasoning_content": "hm"}),
        ),
        (
            "refusal",
            {"reply": {"text": "No.", "finished": "refused"}},
            whole({"content": None, "refusal": "No."}),
        ),
        ("filtered", {"reply": {"finished": "refused"}}, whole({"content": ""}, "content_filter")),
        ("message null", RETRY, whole(None)),
        ("choices of null", RETRY, {"choices": [None]}),
        (
            "an error behind 200",
            {"failure": {"retryable": True, "status": 502}},
            {"error": {"code": 502, "message": "{KEY}"}},
        ),
        (
            "a refusal behind 200",
            {"failure": {"retryable": False, "status": 403}},
            {"error": {"code": 403, "message": "{KEY}"}},
        ),
        ("an error text behind 200", RETRY, {"error": "{KEY}"}),
        (
            "a thousand calls",
            {"reply": {"calls": 128}},
            whole(calls(*[{"function": {"name": name, "arguments": "{}"}}] * 1000)),
        ),
        (
            "more cached than read",
            {"reply": {"usage": [3, 1, 3]}},
            whole(
                {"content": "fine"},
                usage={
                    "prompt_tokens": 3,
                    "completion_tokens": 1,
                    "prompt_tokens_details": {"cached_tokens": 9},
                },
            ),
        ),
        (
            "usage in absurd numbers",
            {"reply": {"usage": [1_000_000_000, 0, 0]}},
            whole({"content": "fine"}, usage={"prompt_tokens": 10**30, "completion_tokens": -(10**30)}),
        ),
    ]
    found = [
        case(f"compatible: {name}", expect, ["openai"], "whole", json=body) for name, expect, body in table
    ]
    for name, status, body, expect in (
        ("no credit", 429, {"error": {"code": "insufficient_quota"}}, FINAL),
        ("too long", 400, {"error": {"code": "context_length_exceeded"}}, FINAL),
        ("no such model", 404, {"error": {"code": "model_not_found"}}, FINAL),
        ("code of a wrong type", 429, {"error": {"code": ["insufficient_quota"]}}, RETRY),
        ("error is a list", 429, {"error": [1, 2]}, RETRY),
        ("body is a list", 500, [{"error": {"code": 1}}], RETRY),
    ):
        found.append(case(f"code: {name}", expect, ["openai"], status=status, json=body))
    invalid = {"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}], "message": "{KEY}"}}
    found.append(case("code: Google's word for a wrong key", FINAL, ["google"], status=400, json=invalid))
    slow = {"error": {"code": 429, "details": [{"retryDelay": "13s"}]}}
    found.append(
        case("code: Google's pause", {"failure": {"retry_after": 13.0}}, ["google"], status=429, json=slow)
    )
    slow = {"error": {"code": 429, "details": [{"retryDelay": "9e9s"}, {"retryDelay": {}}, None]}}
    found.append(
        case(
            "code: a pause of nonsense", {"failure": {"retry_after": None}}, ["google"], status=429, json=slow
        )
    )
    return found


def structures() -> list[dict]:
    """The schema wants an object with the text ``name`` and nothing else."""
    table: dict[str, tuple[str, Any]] = {
        "plain": ('{"name": "blue"}', {"name": "blue"}),
        "in prose": ('Sure: {"name": "blue"} Bye', {"name": "blue"}),
        "in a fence": ('```json\n{"name": "blue"}\n```', {"name": "blue"}),
        "empty": ("", None),
        "prose": ("blue", None),
        "a list": ('["blue"]', None),
        "a number": ("7", None),
        "null": ("null", None),
        "wrong type": ('{"name": 7}', None),
        "missing": ("{}", None),
        "too much": ('{"name": "blue", "also": 1}', None),
        "NaN": ('{"name": NaN}', None),
        "half": ('{"name": "bl', None),
        "two objects": ('{"name": "a"} {"name": "b"}', None),
        "deep": ('{"name": {BRACKETS}', None),
        "digits": ('{"name": {DIGITS}}', None),
        "nul": ('{"name": "\x00"}', {"name": "\ufffd"}),
        "escaped nul": ('{"name": "\\u0000"}', {"name": "\ufffd"}),
        "half a surrogate": ('{"name": "\\ud800"}', {"name": "?"}),
        "the key": ('{"name": "{KEY}"}', {"name": "********"}),
        "single quotes": ("{'name': 'blue'}", None),
        "trailing comma": ('{"name": "blue",}', None),
        "last of two keys": ('{"name": "a", "name": "b"}', {"name": "b"}),
        "brackets only": ("}{", None),
    }
    found = []
    for name, (said, value) in table.items():
        for provider in ALL:
            document = copy.deepcopy(GOOD[provider])
            match provider:
                case "openai":
                    document["choices"][0]["message"] = {"role": "assistant", "content": said}
                case "anthropic":
                    document["content"] = [{"type": "text", "text": said}]
                case _:
                    document["candidates"][0]["content"]["parts"] = [{"text": said}]
            expect = {"reply": {"structured": value}}
            found.append(case(f"structure: {name}", expect, [provider], "whole", json=document, schema=True))
    return found


def files() -> dict[str, list[dict]]:
    return {
        "transport": transport(),
        "openai_fields": fields("openai"),
        "anthropic_fields": fields("anthropic"),
        "google_fields": fields("google"),
        "openai_streams": openai_streams(),
        "anthropic_streams": anthropic_streams(),
        "google_streams": google_streams(),
        "deviations": deviations(),
        "structures": structures(),
    }


def rendered(cases: list[dict]) -> str:
    return "[\n" + ",\n".join(json.dumps(item) for item in cases) + "\n]\n"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, cases in files().items():
        (FOLDER / f"{name}.json").write_text(rendered(cases))
        print(f"{name}: {len(cases)}")


if __name__ == "__main__":
    main()
