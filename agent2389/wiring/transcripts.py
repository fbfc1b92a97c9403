"""The copy of transcripts that a configuration asks for."""

import contextlib
from collections.abc import AsyncIterator
from importlib.util import find_spec

from agent2389.config.model import AgentConfiguration
from agent2389.errors import ConfigurationError
from agent2389.insight.transcript_sink import TranscriptSink
from agent2389.telemetry.logs import register_secret
from agent2389.telemetry.metrics import Metrics


@contextlib.asynccontextmanager
async def transcript_sink(
    configuration: AgentConfiguration, metrics: Metrics
) -> AsyncIterator[TranscriptSink | None]:
    """A sink for the time of the block; ``None`` without ``[transcripts] mongodb_url``.

    Raises ``ConfigurationError`` without the extra ``mongo`` or for a bad address; a server that is
    away is no error.
    """
    section = configuration.transcripts
    if section.mongodb_url is None:
        yield None
        return
    if find_spec("pymongo") is None:
        raise ConfigurationError(
            "transcripts.mongodb_url needs the optional dependencies 'mongo'",
            hint="pip install 'agent2389[mongo]'",
        )
    from agent2389.insight.mongo_transcripts import MongoTranscripts  # noqa: PLC0415 - an optional SDK

    url = section.mongodb_url.get_secret_value()
    register_secret(url)
    sink = TranscriptSink(
        MongoTranscripts(url, section.mongodb_database),
        agent_id=configuration.agent.id,
        queue=section.queue,
        on_dropped=lambda count: metrics.dropped.labels("transcript_copy").inc(count),
    )
    sink.open()
    try:
        yield sink
    finally:
        await sink.close()
