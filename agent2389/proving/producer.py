"""A producer that keeps its own record: a job counts once the mesh said that it has it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

from agent2389.broker.port import Connection, Delivery, Message, PublishRefused
from agent2389.errors import Unreachable
from agent2389.proving.script import submission
from agent2389.wire.topics import MeshTopics

AT_ONCE = 8
RECEIPT_SECONDS = 5.0
PAUSE_SECONDS = 0.2
MOST_AHEAD = 400
"""Jobs that a run of given length keeps open: enough that every agent always has work."""


class Producer:
    """Submits over HTTP and MQTT in turn and repeats until there is an answer, as a producer must."""

    def __init__(self, api: str, connection: Connection, tenant: str = "default") -> None:
        self._api = api
        self._connection = connection
        self._topics = MeshTopics(tenant)
        self._receipts: dict[str, asyncio.Future[str]] = {}
        self._session: aiohttp.ClientSession | None = None
        self.accepted: dict[str, float] = {}
        self.repeats = 0
        self.refused: list[str] = []

    async def open(self) -> None:
        """Listen for receipts."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        await self._connection.subscribe(self._topics.receipt("+"), self._on_receipt)

    async def close(self) -> None:
        """Give back the session."""
        if self._session is not None:
            await self._session.close()

    async def run(
        self, prefix: str, *, more: Callable[[int], bool], rate: float, is_open: Callable[[], int]
    ) -> None:
        """Submit ``{prefix}-1``, … while ``more(number)``, at most ``rate`` a second when it is > 0.

        With a limit by time rather than number ``is_open`` keeps the backlog short.
        """
        numbers = asyncio.Queue[int](AT_ONCE)
        workers = [asyncio.create_task(self._work(prefix, numbers)) for _ in range(AT_ONCE)]
        number = 0
        try:
            while more(number):
                while is_open() > MOST_AHEAD and more(number):
                    await asyncio.sleep(PAUSE_SECONDS)
                number += 1
                await numbers.put(number)
                if rate > 0:
                    await asyncio.sleep(1 / rate)
            await numbers.join()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def submit(self, document: dict[str, Any], *, over_http: bool = True) -> bool:
        """Until the mesh has it; ``False`` when it was refused."""
        job_id: str = document["job_id"]
        while True:
            verdict = await (self._post(document) if over_http else self._publish(document))
            if verdict in ("accepted", "duplicate"):
                self.accepted[job_id] = time.time()
                return True
            if verdict in ("rejected", "conflict"):
                self.refused.append(job_id)
                return False
            self.repeats += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def cancel(self, job_id: str) -> str:
        """Ask for a cancellation: the verdict, or nothing when nobody answered."""
        assert self._session is not None
        try:
            async with self._session.post(f"{self._api}/api/v1/jobs/{job_id}/cancel") as response:
                body = await response.json(content_type=None)
                return str(body.get("verdict", "")) if response.status < 300 else ""
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return ""

    async def result(self, job_id: str) -> bytes | None:
        """The terminal payload over HTTP; ``None`` while there is none or nobody answers."""
        assert self._session is not None
        try:
            async with self._session.get(f"{self._api}/api/v1/jobs/{job_id}/result") as response:
                return await response.read() if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def _work(self, prefix: str, numbers: asyncio.Queue[int]) -> None:
        while True:
            number = await numbers.get()
            await self.submit(submission(f"{prefix}-{number}"), over_http=number % 2 == 0)
            numbers.task_done()

    async def _post(self, document: dict[str, Any]) -> str:
        assert self._session is not None
        try:
            async with self._session.post(f"{self._api}/api/v1/jobs", json=document) as response:
                body = await response.json(content_type=None)
                if response.status in (200, 201, 409):
                    return str(body.get("verdict", ""))
                return "rejected" if response.status in (400, 413, 415, 422) else ""
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return ""

    async def _publish(self, document: dict[str, Any]) -> str:
        job_id = document["job_id"]
        topic = self._topics.job(document["capability"], job_id)
        receipt = self._receipts.setdefault(job_id, asyncio.get_running_loop().create_future())
        try:
            await self._connection.publish(Message(topic, msgspec.json.encode(document), retain=True))
            async with asyncio.timeout(RECEIPT_SECONDS):
                return await asyncio.shield(receipt)
        except (Unreachable, PublishRefused, TimeoutError):
            return ""
        finally:
            if receipt.done():
                self._receipts.pop(job_id, None)

    async def _on_receipt(self, delivery: Delivery) -> None:
        job_id = delivery.topic.rpartition("/")[2]
        waiting = self._receipts.get(job_id)
        if waiting is None or waiting.done() or not delivery.payload:
            return
        waiting.set_result(str(msgspec.json.decode(delivery.payload).get("verdict", "")))
