"""Every role on every kind of topic in every way, judged by what really arrives.

A denied publish is silent on Mosquitto, a denied read too: so an allowed witness watches what a role
sends, and sends what a role might hear. The table below was written by hand from the protocol and the
threat model, not from the generator.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.guarded import MOSQUITTO, PLUGIN, WITNESS, Guarded, guarded_broker
from tests.support.plain_mqtt import PlainClient, Refused
from tests.support.structure import ROOT

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

OURS = "agent2389/v1/default"
ROLES = ("ops", "researcher", "outsider", "producer", "monitor", "operator")
# r: hears it, w: may speak there. researcher is an agent of ours with the capability research, writer is
# another one, outsider an agent of another implementation; acme is another tenant on the same broker.
TABLE = f"""
{OURS}/jobs/research                                       rw  rw  -   w   r   r
{OURS}/jobs/writing                                        rw  -   -   w   r   r
{OURS}/jobs/research/j1                                    rw  rw  -   w   r   r
{OURS}/jobs/writing/j1                                     rw  -   -   w   r   r
{OURS}/receipts/j1                                         rw  w   -   r   r   r
{OURS}/receipts/unknown                                    rw  w   -   r   r   r
{OURS}/replies/mine                                        rw  w   -   r   r   r
{OURS}/replies/mine/deeper                                 rw  w   -   r   r   r
{OURS}/cancel/j1                                           rw  r   -   w   r   rw
{OURS}/wake/research                                       rw  rw  -   -   r   r
{OURS}/wake/writing                                        rw  w   -   -   r   r
{OURS}/wake/agent.researcher                               rw  rw  -   -   r   r
{OURS}/wake/agent.writer                                   rw  w   -   -   r   r
{OURS}/open/research/t1/1                                  rw  rw  -   -   r   r
{OURS}/claims/t1/1                                         rw  rw  -   -   r   r
{OURS}/results/j1                                          rw  rw  -   r   r   r
{OURS}/events/j1                                           rw  w   -   r   r   r
{OURS}/agents/researcher/i1/status                         rw  rw  -   -   r   r
{OURS}/agents/writer/i1/status                             rw  rw  -   -   r   r
{OURS}/agents/researcher/i1/probe                          rw  rw  -   -   r   rw
{OURS}/agents/writer/i1/probe                              rw  -   -   -   r   rw
{OURS}/agents/reconcile/i1/probe                           rw  rw  -   -   r   rw
{OURS}/wake/agent.outsider                                 rw  rw  -   -   r   r
{OURS}/control/researcher                                  rw  r   -   -   r   rw
{OURS}/control/writer                                      rw  -   -   -   r   rw
{OURS}/approvals/a1                                        rw  rw  -   -   r   r
{OURS}/approvals/a1/answer                                 rw  r   -   -   r   rw
{OURS}/mesh                                                rw  r   -   -   r   r
{OURS}/unheard-of                                          -   -   -   -   -   -
{OURS}/jobs/research/j1/deeper                             -   -   -   -   -   -
/control/agents/researcher/input                           rw  r   w   w   r   r
/control/agents/writer/input                               rw  -   w   w   r   r
/control/agents/outsider/input                             rw  w   rw  w   r   r
/control/agents/researcher/status                          rw  rw  r   -   r   r
/control/agents/writer/status                              rw  r   r   -   r   r
/control/agents/outsider/status                            rw  r   rw  -   r   r
/control/agents/researcher/progress                        r   w   -   -   r   r
/control/agents/researcher/tools                           r   w   -   -   r   r
/control/agents/researcher/llm                             r   w   -   -   r   r
/control/agents/writer/progress                            r   -   -   -   r   r
/control/agents/outsider/progress                          r   -   w   -   r   r
/control/agents/outsider/llm                               r   -   w   -   r   r
/conversations/c1/researcher                               rw  w   -   r   r   r
/conversations/c1/writer                                   rw  w   -   r   r   r
/conversations/c1/outsider                                 rw  rw  w   r   r   r
/control/agents/researcher/secrets                         -   -   -   -   -   -
control/agents/researcher/input                            -   -   -   -   -   -
agent2389/v1/acme/jobs/research                            -   -   -   -   -   -
agent2389/v1/acme/jobs/research/j1                         -   -   -   -   -   -
agent2389/v1/acme/results/j1                               -   -   -   -   -   -
agent2389/v1/acme/cancel/j1                                -   -   -   -   -   -
agent2389/v1/acme/mesh                                     -   -   -   -   -   -
agent2389/v2/default/jobs/research                         -   -   -   -   -   -
something/else                                             -   -   -   -   -   -
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]
TOPICS = [row[0] for row in ROWS]
EXPECTED = {(row[0], role): cell for row in ROWS for role, cell in zip(ROLES, row[1:], strict=True)}
STATISTICS = {
    "ops": "r",
    "researcher": "-",
    "outsider": "-",
    "producer": "-",
    "monitor": "r",
    "operator": "r",
}
WIDE = ("ops", "monitor", "operator")
"""May subscribe to anything with dynamic security; they hear no more for that."""
WAYS = ("publish", "retained publish", "will", "subscribe", "retained read", "wildcard")
WILDCARDS = ("#", "+/+/+/#", "agent2389/v1/+/#", "/control/#", "/control/agents/+/+", "/conversations/#")
MARK = "witness/mark"


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["acl", "dynamic-security"], name="broker"
)
async def _broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Guarded, str]]:
    if request.param == "dynamic-security" and PLUGIN is None:
        pytest.skip("this mosquitto came without its dynamic security plugin")
    folder = tmp_path_factory.mktemp(request.param)
    files = [str(ROOT / "agents" / f"{name}.toml") for name in ("researcher", "writer")]
    async with guarded_broker(
        folder, *files, "--foreign", "outsider", dynamic=request.param == "dynamic-security"
    ) as guarded:
        yield guarded, request.param


async def connect(
    broker: Guarded, login: str, name: str = "", will: tuple[str, bytes, bool] | None = None
) -> PlainClient:
    return await PlainClient.connect(
        broker.port, name or f"{login}-client", login, broker.passwords[login], ca=broker.ca, will=will
    )


async def watching(broker: Guarded) -> PlainClient:
    witness = await connect(broker, WITNESS)
    assert await witness.subscribe("#") == [0]
    return witness


async def seen(witness: PlainClient) -> dict[str, bytes]:
    """What reached the witness until now; topic → payload."""
    await witness.publish(MARK, b"now")
    return {topic: payload for topic, payload, _ in await witness.heard(MARK)}


def wanted(role: str, right: str) -> set[str]:
    return {topic for topic in TOPICS if right in EXPECTED[topic, role]}


async def clear(witness: PlainClient) -> None:
    for topic in TOPICS:
        await witness.publish(topic, b"", retain=True)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("role", ROLES)
class TestRights:
    async def test_what_it_publishes(self, broker: tuple[Guarded, str], role: str) -> None:
        guarded, _ = broker
        witness, client = await watching(guarded), await connect(guarded, role)
        for topic in TOPICS:
            await client.publish(topic, role.encode())
        got = await seen(witness)
        assert set(got) == wanted(role, "w")
        assert set(got.values()) <= {role.encode()}
        await client.close()
        await witness.close()

    async def test_what_it_leaves_behind_retained(self, broker: tuple[Guarded, str], role: str) -> None:
        guarded, _ = broker
        client = await connect(guarded, role)
        for topic in TOPICS:
            await client.publish(topic, role.encode(), retain=True)
        witness = await watching(guarded)
        assert set(await seen(witness)) == wanted(role, "w")
        # Only who may speak there may clear: nobody else wipes what a topic holds.
        await clear(witness)
        for topic in TOPICS:
            await witness.publish(topic, b"kept", retain=True)
        for topic in TOPICS:
            await client.publish(topic, b"", retain=True)
        again = await connect(guarded, WITNESS, "witness-again")
        await again.subscribe("#")
        assert set(await seen(again)) == set(TOPICS) - wanted(role, "w")
        await clear(witness)
        for each in (client, witness, again):
            await each.close()

    async def test_which_wills_are_published(self, broker: tuple[Guarded, str], role: str) -> None:
        guarded, _ = broker
        witness = await watching(guarded)
        for topic in TOPICS:
            name = f"{role}-{TOPICS.index(topic)}"
            try:
                dying = await connect(guarded, role, name, will=(topic, b"last words", False))
            except Refused:
                continue
            await dying.die()
            # The broker noticed the death when the same client may come again and has nothing left to say.
            await (await connect(guarded, role, name)).close()
        assert set(await seen(witness)) == wanted(role, "w")
        await witness.close()

    async def test_what_it_hears_live(self, broker: tuple[Guarded, str], role: str) -> None:
        guarded, kind = broker
        witness, client = await connect(guarded, WITNESS), await connect(guarded, role)
        codes = await client.subscribe(*TOPICS)
        if kind == "dynamic-security":
            # There a refusal is told at once; an ACL file grants and then delivers nothing.
            granted = {topic for topic, code in zip(TOPICS, codes, strict=True) if code < 128}
            assert granted == (set(TOPICS) if role in WIDE else wanted(role, "r"))
        assert await heard_by(client, witness, guarded, role, retain=False) == wanted(role, "r")
        await client.close()
        await witness.close()

    async def test_what_it_reads_of_the_retained(self, broker: tuple[Guarded, str], role: str) -> None:
        guarded, _ = broker
        witness, client = await connect(guarded, WITNESS), await connect(guarded, role)
        for topic in TOPICS:
            await witness.publish(topic, b"stored", retain=True)
        await client.subscribe(*TOPICS)
        assert await heard_by(client, witness, guarded, role, retain=None) == wanted(role, "r")
        await clear(witness)
        await client.close()
        await witness.close()

    @pytest.mark.parametrize("wildcard", WILDCARDS)
    async def test_a_wildcard_brings_no_more(
        self, broker: tuple[Guarded, str], role: str, wildcard: str
    ) -> None:
        guarded, kind = broker
        witness, client = await connect(guarded, WITNESS), await connect(guarded, role)
        (code,) = await client.subscribe(wildcard)
        for topic in TOPICS:
            await witness.publish(topic, b"stored", retain=True)
        got = await heard_by(client, witness, guarded, role, retain=False)
        matching = {topic for topic in TOPICS if matches(wildcard, topic)}
        refused = kind == "dynamic-security" and role not in WIDE
        assert (code == 128) == refused
        assert got == (set() if refused else wanted(role, "r") & matching)
        await clear(witness)
        await client.close()
        await witness.close()

    async def test_the_brokers_statistics(self, broker: tuple[Guarded, str], role: str) -> None:
        guarded, _ = broker
        witness, client = await connect(guarded, WITNESS), await connect(guarded, role)
        await client.subscribe("$SYS/broker/version")
        got = await heard_by(client, witness, guarded, role, retain=None, topics=())
        assert got == ({"$SYS/broker/version"} if STATISTICS[role] == "r" else set())
        await client.publish("$SYS/broker/version", b"forged", retain=True)
        await witness.subscribe("$SYS/broker/version", MARK)
        assert (await seen(witness)).get("$SYS/broker/version", b"").startswith(b"mosquitto")
        await client.close()
        await witness.close()


async def heard_by(
    client: PlainClient,
    witness: PlainClient,
    guarded: Guarded,
    role: str,
    *,
    retain: bool | None,
    topics: tuple[str, ...] | None = None,
) -> set[str]:
    """Let the witness speak on ``topics`` (``retain=None``: it did before), then on one the role surely hears."""
    if retain is not None:
        for topic in TOPICS if topics is None else topics:
            await witness.publish(topic, b"spoken", retain=retain)
    # A topic of its own that the role hears, so that nobody has to wait for silence.
    echo = min(wanted(role, "r"))
    await witness.publish(echo, b"", retain=True)
    await client.subscribe(echo)
    await witness.publish(echo, b"end of it")
    got: set[str] = set()
    async with asyncio.timeout(10):
        while True:
            while client.received:
                topic, payload, _ = client.received.popleft()
                if (topic, payload) == (echo, b"end of it"):
                    return got
                if payload:
                    got.add(topic)
            await asyncio.sleep(0.002)


def matches(wildcard: str, topic: str) -> bool:
    levels, parts = topic.split("/"), wildcard.split("/")
    if parts[-1] == "#":
        parts = parts[:-1]
        levels = levels[: len(parts)] if len(levels) >= len(parts) else []
    return len(levels) == len(parts) and all(
        part in ("+", level) for part, level in zip(parts, levels, strict=True)
    )


def test_the_matrix_is_large_and_has_both_answers_everywhere() -> None:
    cells = len(ROWS) * len(ROLES) * (len(WAYS) - 1 + len(WILDCARDS))
    assert cells >= 400
    assert len(set(TOPICS)) == len(TOPICS)
    for role in ROLES:
        for right in "rw":
            allowed = wanted(role, right)
            assert len(allowed) < len(TOPICS)
            assert bool(allowed) != (role == "monitor" and right == "w")
