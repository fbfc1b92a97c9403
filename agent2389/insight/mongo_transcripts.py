"""Transcripts in MongoDB, by pymongo's async client: collection ``transcripts``, one document a message."""

from collections.abc import Sequence
from typing import Any

import msgspec
from pymongo import AsyncMongoClient, ReplaceOne
from pymongo.errors import ConfigurationError as UnusableUrl
from pymongo.errors import InvalidName, PyMongoError

from agent2389.errors import ConfigurationError, Unreachable
from agent2389.insight.transcript_sink import TranscriptRecord

SECONDS = 5.0
COLLECTION = "transcripts"


class MongoTranscripts:
    """``insight.transcript_sink.TranscriptStore`` in MongoDB or what speaks its protocol.

    Raises ``ConfigurationError`` for an address that is none; connects when first written to.
    """

    def __init__(self, url: str, database: str) -> None:
        milliseconds = int(SECONDS * 1000)
        try:
            self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
                url,
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                socketTimeoutMS=milliseconds,
                appname="agent2389",
                tz_aware=True,
            )
            self._collection = self._client[database][COLLECTION]
        except (UnusableUrl, InvalidName, ValueError):
            # Its text quotes the address, and that may hold a password.
            raise ConfigurationError(
                "transcripts.mongodb_url or its database is not usable",
                hint="write mongodb://user:password@host:27017 and a plain database name",
            ) from None

    async def write(self, records: Sequence[TranscriptRecord]) -> None:
        """Replace or add one document for each record."""
        writes = [ReplaceOne({"_id": record.place}, _document(record), upsert=True) for record in records]
        try:
            await self._collection.bulk_write(writes, ordered=False)
        except PyMongoError as error:
            reason = f"MongoDB does not take transcripts ({type(error).__name__})"
            raise Unreachable("transcripts", reason, hint="check MONGODB_URL") from None

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


def _document(record: TranscriptRecord) -> dict[str, Any]:
    """``body`` stays JSON text: what a model wrote must not become keys or operators here."""
    fields = msgspec.structs.asdict(record)
    return {"_id": fields.pop("place"), **fields}
