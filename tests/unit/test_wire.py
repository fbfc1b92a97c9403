"""The wire: every malformed input ends in a declared error, canonical form is idempotent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent2389.errors import InputRefused
from agent2389.wire.canonical import canonical_json, content_hash
from agent2389.wire.envelope import pipeline_depth, read_document, read_envelope
from agent2389.wire.limits import MAX_MESSAGE_BYTES, read_json
from agent2389.wire.mesh import Wake, decode_wake, encode
from agent2389.wire.names import derived_uuid, is_capability, is_identifier, protocol_job_id
from agent2389.wire.receipts import Code
from agent2389.wire.submission import read_submission
from agent2389.wire.topics import JobTopic, MeshTopics, canonical_topic, parse_job_topic, parse_protocol_agent

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(VALUES)
def test_canonical_form_is_json_and_idempotent(value: object) -> None:
    once = canonical_json(value)
    assert canonical_json(json.loads(once)) == once


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (333333333.33333329, "333333333.3333333"),
        (1e30, "1e+30"),
        (4.5, "4.5"),
        (2e-3, "0.002"),
        (1e-27, "1e-27"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (-0.0, "0"),
        (1.0, "1"),
        (5e-324, "5e-324"),
    ],
)
def test_numbers_look_as_rfc_8785_says(value: float, text: str) -> None:
    assert canonical_json(value) == text.encode()


def test_keys_are_sorted_by_utf16() -> None:
    assert (
        canonical_json({"\ufb33": 1, "\U0001f600": 2, "a": 3}) == '{"a":3,"\U0001f600":2,"\ufb33":1}'.encode()
    )


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_value_or_a_refusal(payload: bytes) -> None:
    try:
        read_json(payload)
    except InputRefused as refused:
        assert refused.code in set(Code)


@given(st.text(max_size=200))
def test_any_text_as_a_submission_ends_in_a_declared_way(text: str) -> None:
    payload = text.encode("utf-8", "surrogatepass")
    for topic in (None, JobTopic("research", None), JobTopic("research", "job-1")):
        try:
            received = read_submission(payload, topic)
        except InputRefused as refused:
            assert refused.code in set(Code)
        else:
            assert len(received.content_hash) == 64


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"[" * 100_000, Code.TOO_DEEP),
        (b'{"a":' * 40 + b"1" + b"}" * 40, Code.TOO_DEEP),
        (b"x" * (MAX_MESSAGE_BYTES + 1), Code.TOO_LARGE),
        (b'{"a":1,"a":2}', Code.DUPLICATE_KEY),
        (b'{"a":"\\u0000"}', Code.MALFORMED),
        (b'{"a":"\\ud800"}', Code.MALFORMED),
        (b'{"a":NaN}', Code.MALFORMED),
        (b'{"a":Infinity}', Code.MALFORMED),
        (b'{"a":1e999}', Code.MALFORMED),
        (b'{"a":' + b"9" * 5000 + b"}", Code.MALFORMED),
        (b'{"a":9007199254740993}', Code.MALFORMED),
        (b"\xff\xfe", Code.MALFORMED),
        (b"\xef\xbb\xbf{}", Code.MALFORMED),
        (b"{", Code.MALFORMED),
        (b"", Code.MALFORMED),
    ],
)
def test_hostile_json_is_refused_by_name(payload: bytes, code: str) -> None:
    with pytest.raises(InputRefused) as refused:
        read_json(payload)
    assert refused.value.code == code


LONG_FORM = JobTopic("research", "job-1")


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, Code.INVALID),
        ([], Code.INVALID),
        ({"instruction": 5}, Code.INVALID),
        ({"instruction": "  "}, Code.INVALID),
        ({"instruction": "x", "job_id": "other"}, Code.MISMATCH),
        ({"instruction": "x", "capability": "writing"}, Code.MISMATCH),
        ({"instruction": "x", "capability": "a/b"}, Code.INVALID),
        ({"instruction": "x", "agent": "a#"}, Code.INVALID),
        ({"instruction": "x", "priority": 10}, Code.INVALID),
        ({"instruction": "x", "priority": "high"}, Code.INVALID),
        ({"instruction": "x", "deadline": "tomorrow"}, Code.INVALID),
        ({"instruction": "x", "deadline": "2026-01-01T00:00:00"}, Code.INVALID),
        ({"instruction": "x", "budget": {"cost_usd": -1}}, Code.INVALID),
        ({"instruction": "x", "routing": {"max_hops": 0}}, Code.INVALID),
        ({"instruction": "x", "files": "no"}, Code.INVALID),
        ({"instruction": "x", "conversation_id": "a/b"}, Code.INVALID),
    ],
)
def test_a_wrong_submission_is_refused_by_name(document: object, code: str) -> None:
    with pytest.raises(InputRefused) as refused:
        read_submission(json.dumps(document).encode(), LONG_FORM)
    assert refused.value.code == code


def test_the_hash_ignores_key_order_and_traceparent_and_keeps_unknown_fields() -> None:
    def digest(text: str) -> str:
        return read_submission(text.encode(), LONG_FORM).content_hash

    base = digest('{"instruction":"x","extra":1}')
    assert digest('{"extra":1.0,"instruction":"x","traceparent":"00-a"}') == base
    assert digest('{"instruction":"x","extra":2}') != base


def test_a_bare_topic_takes_plain_text_and_a_retained_one_a_stable_id() -> None:
    topic = JobTopic("research", None)
    received = read_submission("Grüße".encode(), topic)
    assert (received.submission.instruction, received.job_id) == ("Grüße", None)
    kept = [read_submission(b"same", topic, retained=True).job_id for _ in range(2)]
    assert kept[0] is not None
    assert kept[0] == kept[1]


def test_topics_are_parsed_as_they_are_built() -> None:
    topics = MeshTopics("default")
    assert parse_job_topic(topics.job("research", "j"), "default") == JobTopic("research", "j")
    assert parse_job_topic(topics.bare_job("Research"), "default") == JobTopic("research", None)
    assert parse_job_topic(topics.job("research", "j"), "other") is None
    assert parse_job_topic("agent2389/v1/default/jobs/a/b/c", "default") is None
    assert max(len(t.split("/")) for t in (topics.open("a", "b", 1), topics.presence("a", "b"))) <= 7


@pytest.mark.parametrize("topic", ["//control//agents/foo/", "/control/agents/foo", "control/agents/foo"])
def test_topics_are_canonicalised(topic: str) -> None:
    assert canonical_topic(topic) == "/control/agents/foo"
    assert parse_protocol_agent(topic) == "foo"


def test_names() -> None:
    assert is_identifier("A.b_c-1")
    assert not any(map(is_identifier, ("", ".a", "a/b", "a+", "a#", "a" * 65, "a\n")))
    assert is_capability("a-b_1")
    assert not any(map(is_capability, ("A", "a.b", "")))
    assert derived_uuid("a")[14] == "4"
    assert protocol_job_id("t", "a", "1") != protocol_job_id("t", "b", "1")


def envelope(**changes: object) -> bytes:
    document: dict[str, object] = {
        "task_id": "7b0e9a56-1f0e-4a84-9f5b-2f1c0c8f6a01",
        "conversation_id": "demo",
        "topic": "/control/agents/a/input",
        "instruction": None,
        "input": {},
        "next": None,
    }
    return json.dumps({**document, **changes}).encode()


def chain(depth: int) -> object:
    next_: object = None
    for _ in range(depth):
        next_ = {"topic": "/control/agents/a/input", "instruction": None, "input": None, "next": next_}
    return next_


def test_pipelines_up_to_sixteen_tasks() -> None:
    assert pipeline_depth(chain(15)) == 16
    assert read_envelope(read_document(envelope(next=chain(15)))).next is not None
    with pytest.raises(InputRefused) as refused:
        read_envelope(read_document(envelope(next=chain(16))))
    assert refused.value.code == "pipeline_depth_exceeded"


@pytest.mark.parametrize(
    "changes",
    [
        {"task_id": "no"},
        {"task_id": 5},
        {"conversation_id": "a/b"},
        {"instruction": 5},
        {"next": []},
        {"next": {"topic": "elsewhere"}},
    ],
)
def test_a_wrong_envelope_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputRefused):
        read_envelope(read_document(envelope(**changes)))


def test_wakes_round_trip_and_rubbish_is_nothing() -> None:
    wake = Wake("t", 1, "j", 5)
    assert decode_wake(encode(wake)) == wake
    assert decode_wake(b"[" * 500) is None
    assert decode_wake(b"{}") is None


def test_the_hash_of_equal_numbers_is_equal() -> None:
    assert content_hash({"a": 1}) == content_hash({"a": 1.0})
