"""Blobs over HTTP: big values before the job that names them, big results after it."""

import hashlib
import re

from aiohttp import web

from agent2389.errors import InputRefused
from agent2389.insight.bodies import body_bytes
from agent2389.ops.dependencies import DEPENDENCIES
from agent2389.wire.names import is_sha256
from agent2389.wire.receipts import Code

MAX_BLOB_BYTES = 32 * 1024 * 1024


def add(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_put("/api/v1/blobs/{sha256}", put)
    app.router.add_get("/api/v1/blobs/{sha256}", get)


async def put(request: web.Request) -> web.Response:
    """Store a blob under the hash of its content."""
    wanted = _hash(request)
    if (request.content_length or 0) > MAX_BLOB_BYTES:
        raise InputRefused(Code.TOO_LARGE, "a blob has at most 32 MiB")
    content = await body_bytes(request)
    if len(content) > MAX_BLOB_BYTES:
        raise InputRefused(Code.TOO_LARGE, "a blob has at most 32 MiB")
    if hashlib.sha256(content).hexdigest() != wanted:
        raise InputRefused(Code.MISMATCH, "the content has another SHA-256 than the address")
    await request.app[DEPENDENCIES].ledger.put_blob(content, request.content_type)
    return web.json_response({"sha256": wanted, "size": len(content)}, status=201)


async def get(request: web.Request) -> web.Response:
    """Read a blob. It is offered as a download: its content is nobody's page."""
    blob = await request.app[DEPENDENCIES].ledger.get_blob(_hash(request))
    kind = (
        blob.media_type if re.fullmatch(r"[\w.+-]+/[\w.+-]+", blob.media_type) else "application/octet-stream"
    )
    headers = {
        "Content-Disposition": f'attachment; filename="{blob.sha256[:12]}"',
        "X-Content-Type-Options": "nosniff",
        "ETag": f'"{blob.sha256}"',
    }
    return web.Response(body=blob.content, content_type=kind, headers=headers)


def _hash(request: web.Request) -> str:
    sha256 = request.match_info["sha256"]
    if not is_sha256(sha256):
        raise InputRefused(Code.INVALID, "the address of a blob is its SHA-256 in lower-case hexadecimal")
    return sha256
