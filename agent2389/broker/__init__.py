"""MQTT: one port, the real adapter, the in-memory twin."""
