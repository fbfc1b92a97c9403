"""What an agent's file leads to right now: does the broker let us in, is the ledger the right one."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from agent2389.broker.reach import reach
from agent2389.config.load import Loaded, require_key
from agent2389.config.model import AgentConfiguration
from agent2389.errors import Agent2389Error, ConfigurationError, Unreachable
from agent2389.ledger.postgres import PostgresLedger
from agent2389.wire.names import new_uuid7
from agent2389.wire.topics import MeshTopics
from agent2389.wiring.servers import broker_address

CONNECT_SECONDS = 6.0
BROKER_SECONDS = 3.5
"""Leaves time for the message to ourselves."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that would keep the agent from working; ``where`` is broker, ledger or model."""

    where: str
    error: Agent2389Error

    def render(self) -> str:
        """What, and the next step."""
        hint = f"\n      {self.error.hint}" if self.error.hint else ""
        return f"{self.where}: {self.error}{hint}"


async def findings(loaded: Loaded) -> list[Finding]:
    """Try the broker with its credentials, the ledger with its login, and look for the model's key.

    All at once; takes at most about six seconds. Nothing is written, and nothing published but one
    message to ourselves on a topic that nobody else listens to.
    """
    configuration = loaded.configuration

    async def key() -> None:
        require_key(loaded)

    checks: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
        ("broker", lambda: _broker(configuration)),
        ("ledger", lambda: _ledger(configuration)),
        ("model", key),
    )
    errors = await asyncio.gather(*(_error_of(check) for _, check in checks))
    return [Finding(where, error) for (where, _), error in zip(checks, errors, strict=True) if error]


async def _error_of(check: Callable[[], Awaitable[None]]) -> Agent2389Error | None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await check()
    except TimeoutError:
        return Unreachable("server", f"no answer within {CONNECT_SECONDS:g} seconds")
    except Agent2389Error as error:
        return error
    return None


async def _broker(configuration: AgentConfiguration) -> None:
    production = configuration.environment == "production"
    agent = configuration.agent
    await reach(
        broker_address(configuration.mqtt, production=production),
        seconds=BROKER_SECONDS,
        probe=MeshTopics(agent.tenant).probe(agent.id, new_uuid7()),
    )


async def _ledger(configuration: AgentConfiguration) -> None:
    url = configuration.ledger.database_url
    if url is None:
        raise ConfigurationError(
            "no ledger is configured", hint="set DATABASE_URL or [ledger] database_url_env"
        )
    ledger = await PostgresLedger.open(url.get_secret_value(), role="agent2389_agent")
    try:
        if ledger.tenant != configuration.agent.tenant:
            raise ConfigurationError(
                f"the file says tenant {configuration.agent.tenant}, the login belongs to {ledger.tenant}",
                hint="use a login of that tenant or change agent.tenant",
            )
    finally:
        await ledger.close()
