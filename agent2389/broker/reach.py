"""Whether a broker lets us in: one CONNECT with the credentials, nothing published."""

from agent2389.broker.address import BrokerAddress
from agent2389.broker.mqtt import MqttBroker
from agent2389.errors import NotAllowed, Unreachable
from agent2389.wire.names import new_uuid7

_REFUSALS = ("not authori", "bad user name", "password", "banned", "identifier not valid")


async def reach(address: BrokerAddress, *, seconds: float = 5.0) -> None:
    """Return once connected. Raises ``NotAllowed`` (login), ``Unreachable``, ``ConfigurationError`` (TLS files)."""
    broker = MqttBroker(address)
    try:
        connection = await broker.connect(f"probe-{new_uuid7()}")
        try:
            await connection.wait_connected(seconds)
        except Unreachable:
            reason = connection.state.last_error or "no answer"
            if any(word in reason.lower() for word in _REFUSALS):
                raise NotAllowed(
                    f"the broker at {address} refuses the login: {reason}",
                    hint="check mqtt.username and mqtt.password_env (MQTT_USERNAME, MQTT_PASSWORD)",
                ) from None
            raise Unreachable(
                "broker",
                f"the broker at {address} cannot be reached: {reason}",
                hint="check mqtt.broker_url (MQTT_BROKER_URL) and, with mqtts://, mqtt.ca_file",
            ) from None
    finally:
        await broker.close()
