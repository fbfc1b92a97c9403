"""Durable, event-driven meshes of LLM agents on plain MQTT."""

__version__ = "0.1.0"
