"""One model at one endpoint, in any dialect: time limits, structure, typed failures, clean replies."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import httpx2
import msgspec

from agent2389.errors import Agent2389Error, ModelFailed
from agent2389.llm.dialect import Dialect
from agent2389.llm.failures import failure_of_status
from agent2389.llm.messages import Chunk, Finished, Reply, Request, TokenUsage
from agent2389.llm.pricing import LookUp, Price, cost_usd
from agent2389.llm.replies import Raw, distinct, unusable, usage_of, without_secret
from agent2389.llm.structured import MECHANISMS, Mechanism, asked, repair, split
from agent2389.llm.transport import open_client

NO_KEY: Final = "no-key"
"""What endpoints without authentication get: the SDKs insist on some key."""
PROBE_SECONDS: Final = 5.0
_NOT_UNDERSTOOD: Final = frozenset({400, 404, 415, 422, 501})
"""Statuses by which endpoints refuse a way of asking for structure."""


class EndpointModel:
    """``llm.port.Model`` over a dialect. The SDK is imported at the first call, in a thread."""

    def __init__(
        self,
        dialect: Dialect,
        model: str,
        *,
        api_key: str | None,
        base_url: str | None = None,
        proxy: str | None = None,
        price: Price | None = None,
    ) -> None:
        self._dialect = dialect
        self._model = model
        self._api_key = api_key
        self._base_url = (base_url or dialect.address).rstrip("/")
        self._proxy = proxy
        self._price = price
        self._http: httpx2.AsyncClient | None = None
        self._client: Any = None
        self._opening = asyncio.Lock()
        self._mechanism = Mechanism.NATIVE

    def __repr__(self) -> str:
        return f"EndpointModel({self.provider}, {self.name})"

    @property
    def name(self) -> str:
        """The model's name as the endpoint knows it."""
        return self._model

    @property
    def provider(self) -> str:
        """The dialect's."""
        return self._dialect.provider

    async def answer(self, request: Request) -> Reply:
        """One complete answer; a structured one that does not fit is repaired once."""
        if request.schema is None:
            return self._reply(await self._complete(request, Mechanism.NATIVE), request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.timeout
        raw = await self._complete_in_structure(request)
        raw, value, problem = split(raw, request.schema)
        reply = self._reply(raw, request, value)
        if value is not None or reply.tool_calls or reply.finished in (Finished.LENGTH, Finished.REFUSED):
            return reply
        again = repair(request, raw.text, problem)
        again = msgspec.structs.replace(again, timeout=max(deadline - loop.time(), 0.0))
        raw, value, _ = split(await self._complete(again, self._mechanism), request.schema)
        second = self._reply(raw, again, value)
        usage = _sum(reply.usage, second.usage)
        return msgspec.structs.replace(second, usage=usage, cost_usd=self._cost(usage))

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """The same answer in pieces; the last chunk carries the whole reply, unrepaired."""
        for mechanism in self._mechanisms(request):
            begun = False
            try:
                async for chunk in self._stream(request, mechanism):
                    begun = True
                    yield chunk
                return
            except ModelFailed as error:
                if begun or mechanism is MECHANISMS[-1] or not _not_understood(error, request):
                    raise

    async def verify(self) -> None:
        """Ask for the list of models: any HTTP answer that does not refuse the key counts as reachable."""
        await self._connected_http()
        assert self._http is not None
        url, headers = self._dialect.probe(self._api_key or NO_KEY, self._base_url)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                response = await self._http.get(url, headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            raise ModelFailed(
                f"the model endpoint does not answer: {type(error).__name__}",
                hint="check llm.base_url and the network",
            ) from None
        if response.status_code in (400, 401, 403):
            failure = failure_of_status(response.status_code, response.headers, _json(response))
            if response.status_code != 400 or "key" in str(failure):
                raise failure

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        http, self._http, self._client = self._http, None, None
        if http is not None:
            await http.aclose()

    # one call --------------------------------------------------------------------

    async def _connected_http(self) -> None:
        async with self._opening:
            if self._http is None:
                # Reading the certificates takes long enough to hold the loop up.
                self._http = await asyncio.to_thread(open_client, self._proxy)

    async def _connected(self) -> Any:
        if self._client is None:
            await self._connected_http()
            async with self._opening:
                if self._client is None:
                    self._client = await asyncio.to_thread(self._import_and_connect)
        return self._client

    def _import_and_connect(self) -> Any:
        assert self._http is not None
        key = self._api_key or NO_KEY
        if self._price is not None:
            return self._dialect.client(key, self._base_url, self._http)
        table = LookUp(self.provider, self._model)
        table.begin()
        try:
            return self._dialect.client(key, self._base_url, self._http)
        finally:
            self._price = table.end()

    async def _complete(self, request: Request, mechanism: Mechanism) -> Raw:
        client = await self._connected()
        try:
            async with asyncio.timeout(request.timeout):
                raw = await self._dialect.complete(client, self._model, asked(request, mechanism))
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises becomes our one error
            raise self._failure(error) from None
        return without_secret(raw, self._api_key)

    async def _complete_in_structure(self, request: Request) -> Raw:
        """The best mechanism that the endpoint takes; what it took is remembered."""
        for mechanism in self._mechanisms(request):
            try:
                raw = await self._complete(request, mechanism)
            except ModelFailed as error:
                if mechanism is MECHANISMS[-1] or not _not_understood(error, request):
                    raise
                continue
            self._mechanism = mechanism
            return raw
        raise AssertionError("the last mechanism returns or raises")

    def _mechanisms(self, request: Request) -> tuple[Mechanism, ...]:
        if request.schema is None:
            return (MECHANISMS[-1],)
        return MECHANISMS[MECHANISMS.index(self._mechanism) :]

    async def _stream(self, request: Request, mechanism: Mechanism) -> AsyncIterator[Chunk]:
        client = await self._connected()
        pieces = self._dialect.stream(client, self._model, asked(request, mechanism))
        raw: Raw | None = None
        try:
            async for piece in _paced(pieces, request):
                if isinstance(piece, Raw):
                    raw = piece
                elif piece:
                    yield Chunk(text=piece)
        except Exception as error:  # noqa: BLE001 - as above
            raise self._failure(error) from None
        if raw is None:
            raise ModelFailed("the stream was cut before its end", retryable=True)
        raw, value = without_secret(raw, self._api_key), None
        if request.schema is not None:
            self._mechanism = mechanism
            raw, value, _ = split(raw, request.schema)
        yield Chunk(reply=self._reply(raw, request, value))

    def _reply(self, raw: Raw, request: Request, structured: Any = None) -> Reply:
        calls, finished = distinct(raw.calls), raw.finished
        if calls and finished in (Finished.STOP, Finished.OTHER):
            finished = Finished.TOOL_CALLS
        elif not calls and finished is Finished.TOOL_CALLS:
            finished = Finished.STOP
        usage = usage_of(raw, request)
        return Reply(
            text=raw.text,
            tool_calls=calls,
            structured=structured,
            usage=usage,
            cost_usd=self._cost(usage),
            finished=finished,
            raw_reason=raw.raw_reason,
            model=raw.model or self._model,
            asked=self._model,
        )

    def _cost(self, usage: TokenUsage) -> float | None:
        return cost_usd(usage, self._price)

    def _failure(self, error: Exception) -> ModelFailed:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, Agent2389Error):
                return cause if isinstance(cause, ModelFailed) else ModelFailed(str(cause), retryable=False)
            cause = cause.__cause__
        if isinstance(error, TimeoutError | httpx2.TimeoutException):
            return ModelFailed("the model did not answer in time", retryable=True)
        if (failure := self._dialect.failure(error)) is not None:
            return failure
        if isinstance(error, httpx2.HTTPError):
            return unreachable()
        return unusable(type(error).__name__)


def unreachable() -> ModelFailed:
    """The failure of a connection that was refused, reset or cut."""
    return ModelFailed("the model endpoint does not answer", hint="check llm.base_url and the network")


async def _paced(pieces: AsyncGenerator[str | Raw], request: Request) -> AsyncIterator[str | Raw]:
    """``pieces`` as long as the first comes within ``first_token_timeout`` and all within ``timeout``.

    The limit is set around each wait, because one around a ``yield`` would cancel the consumer.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + request.timeout
    limit = min(end, loop.time() + request.first_token_timeout)
    try:
        while True:
            try:
                async with asyncio.timeout_at(limit):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            limit = end
            yield piece
    finally:
        await pieces.aclose()


def _not_understood(error: ModelFailed, request: Request) -> bool:
    return request.schema is not None and error.status in _NOT_UNDERSTOOD


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _sum(one: TokenUsage, other: TokenUsage) -> TokenUsage:
    return TokenUsage(one.input + other.input, one.output + other.output, one.cached + other.cached)
