"""The broker that a verb talks to: named by a flag, the environment, or the mesh that runs here."""

import contextlib
from collections.abc import AsyncIterator

from agent2389.broker.address import BrokerAddress
from agent2389.broker.mqtt import MqttBroker
from agent2389.broker.port import Connection
from agent2389.config.model import MqttSection
from agent2389.config.process import ProcessConfiguration, load_process
from agent2389.errors import ConfigurationError, NotFound
from agent2389.launch.folder import read_mesh
from agent2389.wire.names import new_uuid7
from agent2389.wiring.servers import broker_address, open_broker

CONNECT_SECONDS = 10.0


def section_of(url: str | None, process: ProcessConfiguration | None = None) -> MqttSection:
    """The broker's section for ``--broker URL``, MQTT_BROKER_URL, or the mesh on the data folder.

    Raises ``ConfigurationError`` when none of them names a broker.
    """
    process = process or load_process()
    section = process.mqtt
    if url is not None:
        return section.model_copy(update={"broker_url": url})
    if "broker_url" in section.model_fields_set:
        return section
    try:
        return section.model_copy(update={"broker_url": read_mesh(process.data).broker_url})
    except NotFound:
        raise ConfigurationError(
            "no broker is named and no mesh runs here", hint="set MQTT_BROKER_URL or pass --broker URL"
        ) from None


def address_of(url: str | None) -> BrokerAddress:
    """Where that broker is."""
    return broker_address(section_of(url))


@contextlib.asynccontextmanager
async def connected(url: str | None, name: str) -> AsyncIterator[Connection]:
    """A connection for the time of the block. Raises ``Unreachable`` when the broker does not answer."""
    broker: MqttBroker = open_broker(section_of(url))
    try:
        connection = await broker.connect(f"{name}-{new_uuid7()}")
        await connection.wait_connected(CONNECT_SECONDS)
        yield connection
    finally:
        await broker.close()
