"""The verbs that need a broker alone, on a real one: submit --message, monitor, publish, retained."""

import asyncio
import io
import json
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from agent2389.broker.address import parse_broker_url
from agent2389.broker.local import local_broker
from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.port import Connection, Delivery, Message
from agent2389.cli import retained
from agent2389.cli.jobs import NotSucceeded, WaitTimedOut
from agent2389.cli.main import app
from agent2389.cli.monitor import Format, Mode, monitor
from agent2389.cli.protocol import Wanted, submit_message
from agent2389.errors import InputRefused, NotAllowed, Unreachable
from agent2389.telemetry import children
from agent2389.wire.topics import MeshTopics, conversation, protocol_input, protocol_status
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("broker")
    environ = {"AGENT2389_LOCAL_BROKER": "mosquitto"}
    async with local_broker(folder, port=children.free_port(), environ=environ) as running:
        yield running.url


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Connection]:
    broker = MqttBroker(parse_broker_url(url))
    try:
        connection = await broker.connect(f"test-{uuid.uuid4().hex[:8]}")
        await connection.wait_connected(5)
        yield connection
    finally:
        await broker.close()


@asynccontextmanager
async def agent(url: str, name: str, **says: Any) -> AsyncIterator[list[dict[str, Any]]]:
    """Somebody who answers every envelope with ``says`` in the name of the last agent of its chain."""
    got: list[dict[str, Any]] = []
    async with client(url) as connection:

        async def on_input(delivery: Delivery) -> None:
            envelope = json.loads(delivery.payload)
            got.append(envelope)
            body = json.dumps({"task_id": envelope["task_id"], **says}).encode()
            await connection.publish(Message(conversation(envelope["conversation_id"], name), body))

        await connection.subscribe(protocol_input(name), on_input)
        yield got


def wanted(name: str, **changes: Any) -> Wanted:
    return Wanted(**{"agent": name, "message": "Write it.", **changes})


async def test_a_message_is_answered(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with agent(url, "one", response="It is written.") as got:
        await submit_message(url, wanted("one"), wait=True, timeout=10, as_json=False)
    assert capsys.readouterr().out == "It is written.\n"
    assert got[0]["input"] == {"message": "Write it."}
    assert (got[0]["instruction"], got[0]["next"]) == ("Write it.", None)
    assert uuid.UUID(got[0]["task_id"]).version == 4


async def test_tool_chain_conversation_and_input_stand_in_the_envelope(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = {"path": "a.txt"}
    async with agent(url, "two", response="never looked at") as got:
        asked = wanted(
            "two",
            next_agents=("three", "four"),
            conversation_id="talk-2",
            tool="read_file",
            tool_params=parameters,
        )
        await submit_message(url, asked, wait=False, timeout=10, as_json=True)
        await until(lambda: got)
        told = json.loads(capsys.readouterr().out)["data"]
        assert told["conversation_id"] == got[0]["conversation_id"] == "talk-2"
        assert got[0]["input"] == {"message": "Write it.", "tool": "read_file", "parameters": parameters}
        assert "read_file" in got[0]["instruction"]
        link = got[0]["next"]
        assert (link["topic"], link["next"]["topic"]) == (protocol_input("three"), protocol_input("four"))
        await submit_message(url, wanted("two", input={"own": 1}), wait=False, timeout=10, as_json=True)
        await until(lambda: len(got) == 2)
        assert got[1]["input"] == {"own": 1}


async def test_an_error_and_silence_have_their_exit_codes(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"code": "llm_error", "message": "the model is away"}
    async with agent(url, "five", error=error):
        asked = wanted("five", next_agents=("six",))  # an error of the first ends the wait for the second
        with pytest.raises(NotSucceeded, match="the model is away") as refused:
            await submit_message(url, asked, wait=True, timeout=10, as_json=True)
    assert refused.value.exit_code == 7
    assert json.loads(capsys.readouterr().out)["data"]["error"] == error
    with pytest.raises(WaitTimedOut) as late:
        await submit_message(url, wanted("nobody"), wait=True, timeout=0.2, as_json=False)
    assert late.value.exit_code == 8


@pytest.mark.parametrize(
    "changes", [{"agent": "bad/id"}, {"next_agents": ("a", "#")}, {"conversation_id": "a#b"}], ids=str
)
async def test_a_name_that_is_none_is_refused_before_anything_is_sent(
    url: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(InputRefused):
        await submit_message(url, wanted("one", **changes), wait=False, timeout=1, as_json=False)


async def test_the_forms_of_submit_are_told_apart() -> None:
    run = CliRunner()
    for words in (
        ["submit"],
        ["submit", "a", "--message", "b", "--agent", "writer"],
        ["submit", "--message", "b"],
        ["monitor", "--mode", "nothing"],
        ["monitor", "--format", "loud"],
    ):
        assert run.invoke(app, words).exit_code == 2, words
    bad = run.invoke(app, ["submit", "--message", "b", "--agent", "w", "--tool-params", "{"])
    assert isinstance(bad.exception, InputRefused)


async def test_nobody_at_the_address_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent2389.cli.named_broker.CONNECT_SECONDS", 0.3)
    with pytest.raises(Unreachable):
        await monitor(
            "mqtt://127.0.0.1:9", mode=Mode.ALL, form=Format.JSON, agent=None, count=1, seconds=None
        )


async def shown(
    url: str, capsys: pytest.CaptureFixture[str], mode: Mode, form: Format, **options: Any
) -> str:
    limits: dict[str, Any] = {"agent": None, "count": 1, "seconds": 10.0, **options}
    await monitor(url, mode=mode, form=form, **limits)
    return capsys.readouterr().out


async def test_monitor_shows_what_mode_and_format_ask_for(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        Mode.AVAILABILITY: (protocol_status("eye"), {"agent_id": "eye", "status": "available"}),
        Mode.INPUTS: (protocol_input("eye"), {"instruction": "look"}),
        Mode.CONVERSATIONS: (conversation("talk", "eye"), {"response": "seen", "task_id": "x"}),
        Mode.PROGRESS: (protocol_input("eye").replace("input", "progress"), {"message": "half"}),
        Mode.MESH: (MeshTopics().result("eye-1"), {"state": "completed"}),
    }
    async with client(url) as connection:
        for topic, body in said.values():
            await connection.publish(Message(topic, json.dumps(body).encode(), retain=True))
        for mode, (topic, body) in said.items():
            record = json.loads(await shown(url, capsys, mode, Format.JSON))
            assert (record["topic"], record["payload"], record["retained"]) == (topic, body, True)
            assert record["agent_id"] == (None if mode is Mode.MESH else "eye")
        everything = await shown(url, capsys, Mode.ALL, Format.JSON, count=5)
        assert len(everything.splitlines()) == 5
        compact = await shown(url, capsys, Mode.CONVERSATIONS, Format.COMPACT)
        assert compact.split()[1:] == ["conversation", "eye", "seen"]
        pretty = await shown(url, capsys, Mode.AVAILABILITY, Format.PRETTY)
        assert '    "status": "available"' in pretty
        assert await shown(url, capsys, Mode.ALL, Format.JSON, agent="nobody", seconds=0.2) == ""
        for topic, _ in said.values():
            await connection.publish(Message(topic, b"", retain=True))


async def test_a_message_cannot_steer_the_terminal(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with client(url) as connection:
        for body in (b'{"status": "\\u001b[2J available"}', b"\x1b[2J not json"):
            await connection.publish(Message(protocol_status("evil"), body, retain=True))
            for form in Format:
                assert "\x1b" not in await shown(url, capsys, Mode.AVAILABILITY, form, agent="evil")
        await connection.publish(Message(protocol_status("evil"), b"", retain=True))


async def test_publish_takes_text_a_file_or_a_pipe(
    url: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path_factory.mktemp("publish") / "body.json"
    file.write_bytes(b"from a file")
    heard: list[bytes] = []
    async with client(url) as connection:

        async def on_message(delivery: Delivery) -> None:
            heard.append(delivery.payload)

        await connection.subscribe("somewhere", on_message)
        await retained.publish(url, "somewhere", "a text", file=None, retain=False, qos=1)
        await retained.publish(url, "somewhere", None, file=file, retain=False, qos=0)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
        await retained.publish(url, "somewhere", None, file=None, retain=False, qos=1)
        await until(lambda: len(heard) == 3)
    assert heard == [b"a text", b"from a file", b"from a pipe"]
    with pytest.raises(InputRefused):
        await retained.publish(url, "somewhere", "x", file=file, retain=False, qos=1)
    with pytest.raises(InputRefused):
        await retained.publish(url, "x", None, file=file.with_name("none"), retain=False, qos=1)


async def test_retained_topics_are_listed_and_those_of_others_asked_about(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, own = protocol_status("kept"), MeshTopics().result("kept")
    for topic in (theirs, own):
        await retained.publish(url, topic, "{}", file=None, retain=True, qos=1)
    await retained.list_retained(url, (), as_json=True)
    listed = json.loads(capsys.readouterr().out)["data"]
    assert {item["topic"] for item in listed} >= {theirs, own}
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(NotAllowed) as refused:
        await retained.clear_retained(url, [theirs, own], assume_yes=False, as_json=False)
    assert "--yes" in (refused.value.hint or "")
    await retained.clear_retained(url, [own], assume_yes=False, as_json=False)
    await retained.clear_retained(url, ["/control/agents/kept/#"], assume_yes=True, as_json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["data"] == [theirs]
    await retained.list_retained(url, [theirs, own], as_json=False)
    assert capsys.readouterr().out == ""


async def test_a_person_at_a_terminal_is_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    topic = protocol_status("asked")
    await retained.publish(url, topic, "{}", file=None, retain=True, qos=1)
    for said in ("n\n", "y\n"):
        monkeypatch.setattr(sys, "stdin", Terminal(said))
        clear = retained.clear_retained(url, [topic], assume_yes=False, as_json=False)
        if said == "n\n":
            with pytest.raises(NotAllowed):
                await clear
        else:
            await asyncio.wait_for(clear, 10)
