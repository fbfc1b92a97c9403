"""Submissions nobody should send: each gets its code and reason, and the next good one is served."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent2389.wire.receipts import Code
from tests.support.ops import Service, running_ops


@pytest.fixture
async def ops() -> AsyncIterator[Service]:
    async with running_ops() as service:
        yield service


def job(**changes: Any) -> bytes:
    return json.dumps({"instruction": "x"} | changes).encode()


def file(**changes: Any) -> bytes:
    return job(files=[{"name": "a.txt", "content_base64": "eA=="} | changes])


BAD = {
    "nothing at all": (b"", 400, "malformed"),
    "white space": (b"  \n", 400, "malformed"),
    "half a document": (b"{", 400, "malformed"),
    "no JSON": (b"instruction=x", 400, "malformed"),
    "a trailing comma": (b'{"instruction": "x",}', 400, "malformed"),
    "two documents": (b"{}{}", 400, "malformed"),
    "single quotes": (b"{'instruction': 'x'}", 400, "malformed"),
    "not UTF-8": (b'{"instruction": "\xff"}', 400, "malformed"),
    "UTF-16": ('{"instruction": "x"}'.encode("utf-16"), 400, "malformed"),
    "a byte order mark": (b'\xef\xbb\xbf{"instruction": "x"}', 400, "malformed"),
    "NaN": (b'{"instruction": "x", "input": NaN}', 400, "malformed"),
    "Infinity": (b'{"instruction": "x", "input": -Infinity}', 400, "malformed"),
    "a number beyond a double": (b'{"instruction": "x", "input": 1e999}', 400, "malformed"),
    "an integer beyond 2^53": (b'{"instruction": "x", "input": 9007199254740993}', 400, "malformed"),
    "a very long integer": (b'{"instruction": "x", "input": ' + b"9" * 5000 + b"}", 400, "malformed"),
    "U+0000": (b'{"instruction": "a\\u0000b"}', 400, "malformed"),
    "U+0000 in a key": (b'{"instruction": "x", "a\\u0000": 1}', 400, "malformed"),
    "half a surrogate pair": (b'{"instruction": "\\ud800"}', 400, "malformed"),
    "100,000 brackets": (b"[" * 100_000, 400, "too_deep"),
    "33 levels": (job(input=json.loads("[" * 33 + "]" * 33)), 400, "too_deep"),
    "a duplicate key": (b'{"instruction": "a", "instruction": "b"}', 400, "duplicate_key"),
    "a duplicate key far inside": (
        b'{"instruction": "x", "input": [{"a": 1, "a": 2}]}',
        400,
        "duplicate_key",
    ),
    "a list": (b"[]", 422, "invalid"),
    "a text": (b'"do it"', 422, "invalid"),
    "null": (b"null", 422, "invalid"),
    "an empty object": (b"{}", 422, "invalid"),
    "an empty instruction": (job(instruction=" "), 422, "invalid"),
    "a number as instruction": (job(instruction=5), 422, "invalid"),
    "a list as capability": (job(capability=["a"]), 422, "invalid"),
    "a capability with a slash": (job(capability="a/b"), 422, "invalid"),
    "a wildcard as capability": (job(capability="+"), 422, "invalid"),
    "an agent and a capability": (job(agent="a", capability="b"), 422, "invalid"),
    "an agent named by a path": (job(agent="../../etc"), 422, "invalid"),
    "an id with a space": (job(job_id="a b"), 422, "invalid"),
    "a long id": (job(job_id="a" * 65), 422, "invalid"),
    "a priority of ten": (job(priority=10), 422, "invalid"),
    "a priority in words": (job(priority="high"), 422, "invalid"),
    "half a priority": (job(priority=1.5), 422, "invalid"),
    "a negative budget": (job(budget={"cost_usd": -1}), 422, "invalid"),
    "a budget in words": (job(budget="much"), 422, "invalid"),
    "no hops": (job(routing={"max_hops": 0}), 422, "invalid"),
    "too many hops": (job(routing={"max_hops": 65}), 422, "invalid"),
    "a deadline in the past": (job(deadline="2020-01-01T00:00:00Z"), 422, "expired"),
    "a deadline without zone": (job(deadline="2030-01-01T00:00:00"), 422, "invalid"),
    "a deadline in words": (job(deadline="tomorrow"), 422, "invalid"),
    "a deadline at the end of time": (job(deadline="9999-12-31T23:59:59-23:59"), 422, "invalid"),
    "a conversation with a slash": (job(conversation_id="a/b"), 422, "invalid"),
    "a reply topic elsewhere": (job(reply_to="somewhere/else"), 422, "reply_topic"),
    "a reply topic with a wildcard": (job(reply_to="agent2389/v1/default/replies/#"), 422, "reply_topic"),
    "a reply topic of another tenant": (job(reply_to="agent2389/v1/other/replies/a"), 422, "reply_topic"),
    "a file without content": (job(files=[{"name": "a.txt"}]), 422, "invalid"),
    "a file with both": (file(sha256="0" * 64), 422, "invalid"),
    "a file that is not base64": (file(content_base64="!!"), 422, "invalid"),
    "a file name that climbs": (file(name="../a"), 422, "invalid"),
    "an absolute file name": (file(name="/etc/passwd"), 422, "invalid"),
    "a file name with a backslash": (file(name="a\\b"), 422, "invalid"),
    "an empty file name": (file(name=""), 422, "invalid"),
    "a file name with a control character": (file(name="a\nb"), 422, "invalid"),
    "the same file name twice": (
        job(files=[{"name": "a", "content_base64": ""}, {"name": "a", "content_base64": ""}]),
        422,
        "invalid",
    ),
    "65 files": (
        job(files=[{"name": str(number), "content_base64": ""} for number in range(65)]),
        422,
        "invalid",
    ),
    "a hash that is none": (job(files=[{"name": "a", "sha256": "abc"}]), 422, "invalid"),
    "a blob nobody stored": (job(files=[{"name": "a", "sha256": "0" * 64}]), 422, "unknown_blob"),
    "an object as next": (job(next={"topic": 5}), 422, "invalid"),
    "a number as next": (job(next=5), 422, "invalid"),
    "numbers in next": (job(next=[1, 2]), 422, "invalid"),
    "a URL as endpoint": (job(llm={"endpoint": "http://evil.example/v1"}), 422, "invalid"),
    "toolkits in words": (job(toolkits="all"), 422, "invalid"),
    "more than 256 KiB": (job(input="x" * 300_000), 413, "too_large"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_body_gets_its_code_and_the_next_one_is_served(ops: Service, name: str) -> None:
    body, status, code = BAD[name]
    answered, problem = await ops.post("/api/v1/jobs", body)
    assert (answered, problem["code"]) == (status, code)
    assert problem["code"] in set(Code)
    assert 0 < len(problem["detail"]) < 500
    assert await ops.ledger.jobs() == ()
    assert (await ops.post("/api/v1/jobs", job()))[0] == 201


SMALL = {
    "gzip": gzip.compress(job()),
    "x-gzip": gzip.compress(job()[:5]) + gzip.compress(job()[5:]),
    "deflate": zlib.compress(job()),
    "Deflate": zlib.compress(job())[2:-4],
    "identity": job(),
    "": job(),
}
CODED = {
    "plain as gzip": ("gzip", job(), 400, "malformed"),
    "plain as deflate": ("deflate", job(), 400, "malformed"),
    "half of it": ("gzip", SMALL["gzip"][:-9], 400, "malformed"),
    "brotli": ("br", job(), 400, "malformed"),
    "zstd": ("zstd", job(), 400, "malformed"),
    "compress": ("compress", job(), 400, "malformed"),
    "two codings": ("gzip, gzip", SMALL["gzip"], 400, "malformed"),
    "no coding at all": ("nonsense", job(), 400, "malformed"),
    "more than 256 KiB unpacked": ("gzip", gzip.compress(job(input="x" * 300_000)), 413, "too_large"),
    "a bomb": ("gzip", gzip.compress(bytes(40 * 1024 * 1024)), 413, "too_large"),
}


@pytest.mark.parametrize("coding", SMALL)
async def test_a_coded_body_is_read(ops: Service, coding: str) -> None:
    assert (await ops.post("/api/v1/jobs", SMALL[coding], **{"Content-Encoding": coding}))[0] == 201


@pytest.mark.parametrize("name", CODED)
async def test_a_body_that_is_not_what_its_coding_says_is_refused(
    ops: Service, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    coding, body, status, code = CODED[name]
    for path in ("/api/v1/jobs", "/api/agent-services/register", "/api/v1/budget"):
        answered, problem = await ops.post(path, body, **{"Content-Encoding": coding})
        assert (answered, problem["code"]) == (status, code)
    assert not caplog.records


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_the_token_is_asked_before_a_body_is_decoded(
    coding: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_ops(token="secret", token_required=True) as guarded:
        status, problem = await guarded.post("/api/v1/jobs", job(), **{"Content-Encoding": coding})
        assert (status, problem["code"]) == (401, "unauthorized")
    assert not caplog.records


@pytest.mark.parametrize("kind", ["text/html", "application/x-www-form-urlencoded", "text/plain"])
async def test_a_form_is_no_submission(ops: Service, kind: str) -> None:
    status, problem = await ops.post("/api/v1/jobs", job(), **{"Content-Type": kind})
    assert (status, problem["code"]) == (415, "unsupported_media_type")
    assert "application/json" in problem["detail"]
