"""A model endpoint that answers at once, so that what a call takes is the caller's own: three wire formats.

Run: .venv/bin/python bench/instant_endpoint.py. Prints its port and serves until its input ends.
"""

import asyncio
import json
import sys
from typing import Any

ANSWERS: dict[str, dict[str, Any]] = {
    "openai": {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "The lake is twelve metres deep. " * 8},
            }
        ],
        "usage": {"prompt_tokens": 400, "completion_tokens": 60, "total_tokens": 460},
    },
    "anthropic": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": "The lake is twelve metres deep. " * 8}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 400, "output_tokens": 60},
    },
    "google": {
        "candidates": [
            {
                "content": {
                    "role": "model",
                    "parts": [{"text": "The lake is twelve metres deep. " * 8}],
                },
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {"promptTokenCount": 400, "candidatesTokenCount": 60, "totalTokenCount": 460},
        "modelVersion": "gemini-2.5-flash",
    },
}


class Instant(asyncio.Protocol):
    """An HTTP server that reads a request to its end and sends bytes that were made before."""

    def __init__(self) -> None:
        self._read = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._read[:end]).lower()
            found = head.find(b"content-length:")
            length = int(head[found + 15 :].split(b"\r\n", 1)[0]) if found >= 0 else 0
            if len(self._read) < end + 4 + length:
                return
            del self._read[: end + 4 + length]
            path = head.split(b" ", 2)[1]
            provider = "openai" if b"chat" in path else "anthropic" if b"messages" in path else "google"
            self._transport.write(READY[provider])


def ready(answer: dict[str, Any]) -> bytes:
    body = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


READY = {provider: ready(answer) for provider, answer in ANSWERS.items()}


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
