"""The packages that speak MQTT, without the resolver that paho looks for and only SRV addresses need."""

from agent2389.telemetry.imports import without

with without("dns"):  # dnspython, which other packages bring: 5 MB
    import aiomqtt
    from aiomqtt.exceptions import MqttConnectError
    from paho.mqtt import client as paho
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties as PahoProperties
    from paho.mqtt.reasoncodes import ReasonCode
    from paho.mqtt.subscribeoptions import SubscribeOptions

__all__ = [
    "MqttConnectError",
    "PacketTypes",
    "PahoProperties",
    "ReasonCode",
    "SubscribeOptions",
    "aiomqtt",
    "paho",
]
