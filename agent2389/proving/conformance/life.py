"""Checks of how an agent comes, speaks and goes: start-up order, orderly and abnormal end, packets."""

import asyncio
import tempfile
from pathlib import Path

from agent2389.proving.conformance.bench import Bench, Heard
from agent2389.proving.conformance.packets import Connect, Disconnect, Publish, Subscribe, SubscribeAnswer
from agent2389.proving.conformance.report import Finding, failed, not_observed, passed
from agent2389.proving.conformance.requirements import requirement
from agent2389.proving.conformance.tap import TlsTrap, make_certificate
from agent2389.wire.topics import protocol_input, protocol_status

NOT_STARTED = "seen only when the kit starts the agent: --start COMMAND"
WRONG_HOST = "conformance.invalid"
WILL_SECONDS = 10.0


def _is_available(payload: bytes) -> bool:
    return (Heard("", payload, 1, False).read() or {}).get("status") == "available"


def _is_unavailable(payload: bytes) -> bool:
    return (Heard("", payload, 1, False).read() or {}).get("status") == "unavailable"


@requirement("FR-002", "start-up: connect, subscribe, tools, model, and only then available")
async def fr_002(bench: Bench) -> Finding:
    """The order of packets at the last start, and whether the model was asked before."""
    if bench.tap is None or bench.model is None:
        return not_observed(NOT_STARTED)
    topic, since = protocol_status(bench.agent_id), bench.started_at
    available = next(
        (
            (seen, packet)
            for seen, packet in bench.tap.packets(Publish, since=since)
            if packet.topic == topic and _is_available(packet.payload)
        ),
        None,
    )
    asked = bench.tap.inputs_asked(protocol_input(bench.agent_id), since=since)
    if available is None or not asked:
        return failed("the agent did not publish available, or did not subscribe to its input")
    seen, packet = available
    if not packet.retain:
        return failed("available was published without the retained flag")
    assert isinstance(asked[0].packet, Subscribe)
    granted = [
        grant.number
        for grant, answer in bench.tap.packets(SubscribeAnswer, since=since)
        if grant.connection == asked[0].connection and answer.packet_id == asked[0].packet.packet_id
    ]
    if not granted or granted[0] > seen.number:
        return failed("available was published before the broker granted the input subscription")
    if bench.strict and bench.model.is_used and bench.model.first_request > seen.at:
        return failed("available was published before the model endpoint was asked anything")
    return passed("connected, subscribed and granted, model asked, and then available (retained)")


@requirement("FR-003", "orderly end: publish unavailable (retained), then disconnect")
async def fr_003(bench: Bench) -> Finding:
    """Stops the agent with SIGTERM."""
    if bench.subject is None or bench.tap is None:
        return not_observed(NOT_STARTED)
    since = len(bench.tap.seen)
    await bench.subject.stop()
    topic = protocol_status(bench.agent_id)
    said = [
        (seen, packet)
        for seen, packet in bench.tap.packets(Publish, since=since)
        if packet.topic == topic and _is_unavailable(packet.payload)
    ]
    if not said:
        return failed("SIGTERM ended the agent without an unavailable of its own")
    seen, packet = said[-1]
    if bench.strict and not packet.retain:
        return failed("unavailable was published without the retained flag")
    gone = [
        end.number
        for end, _ in bench.tap.packets(Disconnect, since=since)
        if end.connection == seen.connection
    ]
    if bench.strict and (not gone or gone[0] < seen.number):
        return failed("after unavailable the connection ended without DISCONNECT")
    return passed(f"unavailable ({'retained' if packet.retain else 'not retained'}), then the end")


@requirement("FR-004", "abnormal end: the will publishes unavailable, retained, on the status topic")
async def fr_004(bench: Bench) -> Finding:
    """Starts the agent again and kills it."""
    if bench.subject is None or bench.tap is None:
        return not_observed(NOT_STARTED)
    await bench.start()
    topic = protocol_status(bench.agent_id)
    wills = [
        packet
        for _, packet in bench.tap.packets(Connect, since=bench.started_at)
        if packet.will_topic is not None
    ]
    heard = len(bench.heard)
    await bench.subject.kill()
    if not any(packet.will_topic == topic for packet in wills):
        return failed("no connection of the agent carries a will on its status topic")
    if not any(packet.will_retain for packet in wills if packet.will_topic == topic):
        return failed("the will is not retained")
    came = await bench.until(lambda: any(_is_unavailable(item.payload) for item in bench.statuses(heard)))
    if not came:
        return failed("after SIGKILL nobody heard unavailable")
    return passed("after SIGKILL the broker published the will: unavailable, retained")


@requirement("FR-012", "the wire format is JSON")
async def fr_012(bench: Bench) -> Finding:
    """Everything the agent ever said; and what is no JSON is no task."""
    task = bench.task()
    lines = [f"{key}: {value}" for key, value in task.document.items()]
    await bench.send_bytes("\n".join(lines).encode())
    await bench.settled()
    if any("response" in answer for answer in bench.answers(task)):
        return failed("a task that is no JSON was processed")
    said = [item for item in bench.said() if item.payload]
    for item in said:
        if item.read() is None:
            return failed(f"a message on {item.topic} is no JSON object: {item.payload[:60]!r}")
    return passed(f"all {len(said)} messages of the agent are JSON objects")


@requirement("NFR-001", "MQTT 3.1.1 at least")
async def nfr_001(bench: Bench) -> Finding:
    """The protocol level of every connection."""
    if bench.tap is None:
        return not_observed(NOT_STARTED)
    levels = sorted({packet.level for _, packet in bench.tap.packets(Connect)})
    if not levels:
        return failed("the agent made no connection that begins with CONNECT")
    if levels[0] < 4:
        return failed(f"a connection uses protocol level {levels[0]}, older than MQTT 3.1.1")
    return passed(f"connections use protocol level {', '.join(map(str, levels))} (4 is 3.1.1, 5 is 5.0)")


@requirement("NFR-002", "QoS 1 on all topics")
async def nfr_002(bench: Bench) -> Finding:
    """Every message of the agent, and its input subscription."""
    said = bench.said()
    for item in said:
        is_progress = item.topic.endswith(("/progress", "/tools", "/llm"))
        if item.qos == 0 and (bench.strict or not is_progress):
            return failed(f"a message on {item.topic} has QoS 0")
    if bench.tap is not None:
        topic = protocol_input(bench.agent_id)
        for seen in bench.tap.inputs_asked(topic):
            assert isinstance(seen.packet, Subscribe)
            if any(qos == 0 for wanted, qos in seen.packet.filters if wanted == topic):
                return failed("the input was subscribed to with QoS 0")
    return passed(f"all {len(said)} messages and the input subscription have QoS 1 or more")


@requirement("NFR-004", "TLS with host name verification; secrets are never logged")
async def nfr_004(bench: Bench) -> Finding:
    """What was printed and published, and a broker whose certificate is for another host."""
    if bench.subject is None or bench.model is None:
        return not_observed(NOT_STARTED)
    printed = bench.subject.printed()
    published = [item.payload.decode("utf-8", "replace") for item in bench.said()]
    for name, value in bench.subject.secrets().items():
        if value in printed:
            return failed(f"the value of {name} is in what the agent printed")
        if any(value in text for text in published):
            return failed(f"the value of {name} is in a message of the agent")
    await bench.subject.kill()
    with tempfile.TemporaryDirectory() as folder:
        certificate = await make_certificate(WRONG_HOST, Path(folder))
        if certificate is None:
            return not_observed("the openssl program is needed to make a certificate; nothing was logged")
        trap = TlsTrap()
        async with trap.listening(*certificate):
            environ = {"SSL_CERT_FILE": str(certificate[0]), "AGENT2389_CA_FILE": str(certificate[0])}
            url = f"mqtts://localhost:{trap.port}"
            await bench.subject.start(url, bench.model.url, **environ)
            async with asyncio.timeout(WILL_SECONDS + bench.timeout):
                while not trap.attempts and bench.subject.is_running:
                    await asyncio.sleep(0.02)
            await bench.subject.kill()
    if trap.trusting:
        return failed(f"the agent talked to a broker whose certificate is for {WRONG_HOST}, not localhost")
    if not trap.attempts:
        return not_observed("nothing was logged; with an mqtts:// address the agent ended before connecting")
    return passed("no secret in log or messages; a certificate for another host was refused")
