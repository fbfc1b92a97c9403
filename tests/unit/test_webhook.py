"""Telling events by webhook: form, signature, order, retry, giving up, and what never shows."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from agent2389.config.model import WebhookSection
from agent2389.config.process import load_process
from agent2389.errors import ConfigurationError, Unreachable
from agent2389.insight.health import Health
from agent2389.ledger.migrate import shipped
from agent2389.ledger.notices import Place
from agent2389.ledger.records import Failure
from agent2389.telemetry.logs import redacted
from agent2389.telemetry.metrics import Metrics
from agent2389.upkeep.notify import BATCH, LONGEST_PAUSE, MOST_REFUSALS, Notifier
from agent2389.upkeep.webhook import Receiver, receiver_of
from agent2389.wire.notice import EVENTS, signed_headers, signing_key
from agent2389.wiring.telling import telling
from tests.support.jobs import claim_one, join, new_job
from tests.support.stepped import SteppedMemory
from tests.support.webhook_receiver import SECRET, Received, WebhookReceiver, is_signed

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class World:
    """A ledger whose clock stands still, a receiver, and the telling between them."""

    def __init__(self, receiver: WebhookReceiver) -> None:
        self.ledger = SteppedMemory()
        self.receiver = receiver
        self.metrics, self.health = Metrics("0"), Health()

    def settings(self, url: str | None = None) -> Receiver:
        section = load_process(
            {
                "AGENT2389_WEBHOOK_URL": url or self.receiver.url,
                "AGENT2389_WEBHOOK_SECRET": SECRET,
                "AGENT2389_WEBHOOK_TIMEOUT": "0.3",
            }
        ).webhook
        found = receiver_of(section)
        assert found is not None
        return found

    def telling(self, url: str | None = None) -> Any:
        return telling(self.settings(url), self.ledger, self.metrics, self.health)

    async def escalated(self, *jobs: str) -> None:
        incarnation = await join(self.ledger)
        for job in jobs:
            await self.ledger.submit(new_job(job))
            claim = await claim_one(self.ledger, incarnation)
            failure = Failure(code="llm_error", message="no", retryable=False, escalate=True)
            await self.ledger.fail(claim.fence, failure)
        await self.ledger.seal(1000)

    async def look(self, notifier: Notifier, *, times: int = 1, seconds: float = 5.0) -> None:
        """Let time pass and look, so often."""
        for _ in range(times):
            await self.ledger.advance(seconds)
            await notifier.tell()

    def count(self, outcome: str) -> float:
        return (
            self.metrics.registry.get_sample_value("agent2389_webhook_events_total", {"outcome": outcome})
            or 0.0
        )

    @property
    def jobs(self) -> list[str]:
        return [received.document["job_id"] for received in self.receiver.requests]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    receiver = WebhookReceiver()
    await receiver.start()
    yield World(receiver)
    await receiver.stop()


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    """The address of a server with one way to answer."""
    app = web.Application()
    app.router.add_post("/hook", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


def status(code: int) -> Any:
    return lambda _: web.Response(status=code)


# form --------------------------------------------------------------------------------------


async def test_an_event_arrives_signed_and_in_its_form(world: World) -> None:
    async with world.telling() as notifier:
        await notifier.tell()
        await world.escalated("job-1")
        await world.look(notifier)
    (received,) = world.receiver.requests
    assert is_signed(received)
    assert not is_signed(Received(received.headers, received.body + b" "))
    assert received.headers["content-type"] == "application/json"
    document = received.document
    ((number, change),) = [
        item for item in await world.ledger.sealed_changes(0) if item[1].type == "task.escalated"
    ]
    assert document == {
        "type": "task.escalated",
        "at": change.at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "mesh_id": await world.ledger.mesh_id(),
        "tenant": "default",
        "job_id": "job-1",
        "task_id": change.task_id,
        "agent_id": "r1",
        "number": number,
        "data": change.data,
    }


def test_the_example_of_the_specification_is_signed_as_there() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    headers = signed_headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_every_type_the_ledger_writes_may_be_asked_for() -> None:
    text = "".join(item.text for item in shipped())
    written = set(re.findall(r"'((?:job|task|effect|approval)\.[a-z_]+)'", text))
    assert written <= set(EVENTS)
    assert set(WebhookSection().events) <= written


# order, retry, giving up -------------------------------------------------------------------


async def test_nothing_of_the_past_is_told_and_nothing_twice(world: World) -> None:
    await world.escalated("past")
    async with world.telling() as notifier:
        await notifier.tell()
        await world.escalated("one", "two")
        await world.look(notifier, times=3)
    assert world.jobs == ["one", "two"]
    async with world.telling(world.receiver.url + "?moved") as notifier:
        await world.look(notifier)
        assert world.jobs == ["one", "two"], "another address is no reason to begin anew"
        await world.escalated("three")
        await world.look(notifier)
    assert world.jobs == ["one", "two", "three"]


@pytest.mark.parametrize("code", [500, 503, 408, 425, 429, 302, 404, 410])
async def test_another_answer_is_tried_again_with_the_same_id(world: World, code: int) -> None:
    async with world.telling() as notifier:
        await notifier.tell()
        await world.escalated("one", "two")
        world.receiver.answer = status(code)
        await world.look(notifier)
        await world.look(notifier, seconds=6)
        assert world.jobs == ["one", "one"], "the second waits for the first"
        world.receiver.answer = status(200)
        await world.look(notifier, seconds=11)
    assert world.jobs == ["one", "one", "one", "two"]
    assert len({received.id for received in world.receiver.requests}) == 2
    assert all(map(is_signed, world.receiver.requests))
    assert (world.count("sent"), world.count("failed"), world.count("skipped")) == (2, 2, 0)


async def test_pauses_grow_and_have_an_end(world: World) -> None:
    world.receiver.answer = status(500)
    tried: list[float] = []
    async with world.telling() as notifier:
        await notifier.tell()
        await world.escalated("one")
        start = world.ledger.time()
        while len(world.receiver.requests) < 12:
            before = len(world.receiver.requests)
            await world.look(notifier, seconds=1)
            if len(world.receiver.requests) > before:
                tried.append((world.ledger.time() - start).total_seconds())
    pauses = [after - before for before, after in itertools.pairwise(tried)]
    assert pauses[0] <= 6
    assert max(pauses) <= LONGEST_PAUSE + 1
    assert min(pauses[7:]) >= LONGEST_PAUSE / 2


async def test_an_event_that_is_refused_for_ever_is_given_up(world: World) -> None:
    def answer(received: Received) -> web.Response:
        return web.Response(status=400 if received.document["job_id"] == "poison" else 204)

    world.receiver.answer = answer
    async with world.telling() as notifier:
        await notifier.tell()
        await world.escalated("poison", "after")
        with capture_logs() as lines:
            await world.look(notifier, times=MOST_REFUSALS, seconds=LONGEST_PAUSE)
    assert world.jobs == ["poison"] * MOST_REFUSALS + ["after"]
    assert (world.count("skipped"), world.count("sent")) == (1, 1)
    (given_up,) = [line for line in lines if line["log_level"] == "error"]
    assert (given_up["type"], given_up["job_id"]) == ("task.escalated", "poison")
    assert (await world.health.checks())["webhook"].status == "healthy"


async def test_an_outage_never_gives_an_event_up(world: World) -> None:
    await world.receiver.stop()
    async with world.telling() as notifier:
        await notifier.tell()
        await world.escalated("one")
        await world.look(notifier, times=MOST_REFUSALS * 2, seconds=LONGEST_PAUSE)
        await world.receiver.start()
        await world.look(notifier, seconds=LONGEST_PAUSE)
    assert world.jobs == ["one"]
    assert world.count("failed") == MOST_REFUSALS * 2


async def test_a_receiver_that_does_not_answer_is_a_failed_try(world: World) -> None:
    async def never(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with served(never) as url, world.telling(url) as notifier:
        await notifier.tell()
        await world.escalated("one")
        await world.look(notifier)
        check = (await world.health.checks())["webhook"]
        assert "does not answer within 0.3 s" in check.message


async def test_what_the_receiver_says_is_not_read(world: World) -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"thank you " * 10_000)
        finally:
            gone.set()

    async with served(endless) as url, world.telling(url) as notifier:
        await notifier.tell()
        await world.escalated("one", "two")
        await world.look(notifier)
        assert (world.count("sent"), world.count("failed")) == (2, 0)
        await asyncio.wait_for(gone.wait(), 5)


async def test_a_redirect_is_not_followed(world: World) -> None:
    world.receiver.answer = lambda _: web.Response(
        status=307, headers={"location": f"http://127.0.0.1:{world.receiver.port}/elsewhere"}
    )
    async with world.telling() as notifier:
        await notifier.tell()
        await world.escalated("one")
        await world.look(notifier)
        assert "redirects are not followed" in (await world.health.checks())["webhook"].message
    assert len(world.receiver.requests) == 1
    assert world.receiver.elsewhere == []


async def test_one_look_tells_a_batch_and_no_more(world: World) -> None:
    async with world.telling() as notifier:
        await notifier.tell()
        await world.escalated(*(f"job-{number:03}" for number in range(BATCH + 3)))
        await world.look(notifier)
        assert len(world.jobs) == BATCH
        await world.look(notifier)
    assert world.jobs == [f"job-{number:03}" for number in range(BATCH + 3)]


async def test_of_two_ops_one_tells(world: World) -> None:
    async with world.telling() as one, world.telling() as other:
        await one.tell()
        await world.escalated("one", "two")
        await world.ledger.advance(5)
        await asyncio.gather(one.tell(), other.tell())
        await world.look(one)
        await world.look(other)
    assert world.jobs == ["one", "two"]


async def test_who_lost_the_telling_stops(world: World) -> None:
    async with world.telling() as notifier:
        await notifier.tell()
        await world.escalated("one", "two")

        def answer(_: Received) -> web.Response:
            row = world.ledger.tables.notices["default", "webhook"]
            row.holder = "somebody else"
            return web.Response(status=204)

        world.receiver.answer = answer
        await world.look(notifier)
    assert world.jobs == ["one"]


async def test_a_ledger_that_is_away_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent2389.upkeep.notify.LOOK_SECONDS", 0.01)
    asked = asyncio.Event()
    async with world.telling() as notifier:
        calls = 0

        async def away(*_: Any, **__: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                asked.set()
            raise Unreachable("ledger", "the database does not answer")

        monkeypatch.setattr(world.ledger.notices, "take", away)
        running = asyncio.create_task(notifier.run())
        await asyncio.wait_for(asked.wait(), 5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


# what people see ---------------------------------------------------------------------------


async def test_health_says_why_and_how_many_wait(world: World) -> None:
    async with world.telling() as notifier:
        await notifier.tell()
        world.receiver.answer = status(500)
        await world.escalated("one", "two")
        await world.look(notifier)
        check = (await world.health.checks())["webhook"]
        assert (check.status, check.required) == ("degraded", False)
        shown = f"http://127.0.0.1:{world.receiver.port}"
        assert check.message == f"{shown} answers 500; tried 1 times, 2 waiting"
        world.health.started_up = True
        assert (await world.health.ready())[0], "a receiver that fails does not keep work away"


async def test_no_secret_shows_anywhere(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    await world.receiver.stop()
    url = f"http://ann:pass-word@127.0.0.1:{world.receiver.port}/hook/private?token=very-secret"
    async with world.telling(url) as notifier:
        await notifier.tell()
        await world.escalated("one")
        with capture_logs() as lines:
            await world.look(notifier)
        message = (await world.health.checks())["webhook"].message
    assert "cannot be reached" in message
    row = world.ledger.tables.notices["default", "webhook"]
    everything = repr((lines, message, row.place, world.settings(url), capsys.readouterr()))
    for secret in ("pass-word", "very-secret", "private", SECRET, SECRET.removeprefix("whsec_")):
        assert secret not in everything
    assert SECRET not in redacted(f"it is {SECRET}")
    assert row.place == Place(number=row.place.number, failures=1, reason=row.place.reason)


# configuration -----------------------------------------------------------------------------


def section(**values: str) -> WebhookSection:
    return load_process({f"AGENT2389_WEBHOOK_{key.upper()}": value for key, value in values.items()}).webhook


def test_without_an_address_it_is_off() -> None:
    assert receiver_of(section()) is None
    assert receiver_of(section(secret=SECRET)) is None


def test_secrets_may_lie_in_files(tmp_path: Any) -> None:
    (tmp_path / "url").write_text("https://hooks.example/x\n")
    (tmp_path / "secret").write_text(SECRET + "\n")
    found = receiver_of(section(url_file=str(tmp_path / "url"), secret_file=str(tmp_path / "secret")))
    assert found is not None
    assert (found.url, found.shown) == ("https://hooks.example/x", "https://hooks.example")
    assert found.key == signing_key(SECRET)


def test_types_are_chosen_by_name() -> None:
    found = receiver_of(section(url="https://a.example", secret=SECRET, events="job.failed, job.completed"))
    assert found is not None
    assert found.events == ("job.failed", "job.completed")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"url": "ftp://a.example", "secret": SECRET}, "must look like https"),
        ({"url": "https://[::1", "secret": SECRET}, "must look like https"),
        ({"url": "https:///path", "secret": SECRET}, "must look like https"),
        ({"url": "https://a.example"}, "without a secret"),
        ({"url": "https://a.example", "secret": "short"}, "5 bytes, fewer than 24"),
        ({"url": "https://a.example", "secret": "whsec_***"}, "not base64"),
        ({"url": "https://a.example", "secret": SECRET, "events": "job.exploded"}, "no event job.exploded"),
    ],
)
def test_a_wrong_setting_is_told_with_the_next_step(values: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as error:
        receiver_of(section(**values))
    assert error.value.hint
    assert "ftp://a.example" not in str(error.value)


def test_a_timeout_that_is_none_is_told_by_its_name() -> None:
    with pytest.raises(ConfigurationError) as error:
        section(timeout="0")
    assert "AGENT2389_WEBHOOK_TIMEOUT" in error.value.problems[0]


def test_production_wants_tls_beyond_this_machine() -> None:
    plain = section(url="http://hooks.example/x", secret=SECRET)
    assert receiver_of(plain) is not None
    with pytest.raises(ConfigurationError, match="not allowed in production"):
        receiver_of(plain, production=True)
    assert receiver_of(section(url="http://127.0.0.1:1/x", secret=SECRET), production=True) is not None
    assert load_process({"AGENT2389_ENVIRONMENT": "production"}).environment == "production"


def test_only_an_http_proxy_leads_out() -> None:
    good = section(url="https://hooks.example/x", secret=SECRET)
    assert (receiver_of(good, proxy="http://proxy:3128") or pytest.fail("off")).proxy == "http://proxy:3128"
    with pytest.raises(ConfigurationError, match="HTTP proxy only"):
        receiver_of(good, proxy="socks5://proxy:1080")
