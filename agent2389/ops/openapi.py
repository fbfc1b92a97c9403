"""OpenAPI 3.1 from the route table and the records, and a page that shows it offline."""

import html
import inspect
from typing import Any

import msgspec
from aiohttp import web

from agent2389 import __version__
from agent2389.ledger.views import AgentRow, ApprovalRow, JobRow, PoolRow
from agent2389.wire.submission import Submission

_BODIES = {("POST", "/api/v1/jobs"): "Submission"}
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:52rem;padding:0 1rem;color:#1d2430}"
    "code{background:#eef1f5;padding:.1rem .3rem;border-radius:3px}dt{margin-top:.9rem}"
    "b{display:inline-block;min-width:4rem}@media(prefers-color-scheme:dark){body{background:#14181f;color:#dde3ec}"
    "code{background:#232a35}}"
)


def add_documentation(app: web.Application) -> None:
    """Serve the document and the page; call it after every other route was added."""
    document = describe(app)

    async def openapi(_: web.Request) -> web.Response:
        return web.json_response(document)

    async def page(_: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return web.Response(text=_page(document), content_type="text/html", headers=headers)

    app.router.add_get("/api/v1/openapi.json", openapi)
    app.router.add_get("/docs", page)


def describe(app: web.Application) -> dict[str, Any]:
    """The OpenAPI document of ``app``."""
    schemas = msgspec.json.schema_components(
        [Submission, JobRow, AgentRow, PoolRow, ApprovalRow], ref_template="#/components/schemas/{name}"
    )[1]
    paths: dict[str, dict[str, Any]] = {}
    for route in app.router.routes():
        if route.method == "HEAD" or route.resource is None:
            continue
        path = route.resource.canonical
        operation: dict[str, Any] = {
            "summary": (inspect.getdoc(route.handler) or path).splitlines()[0],
            "responses": {
                "2XX": {"description": "what was asked for"},
                "4XX": {"description": "a problem", "content": {"application/problem+json": {}}},
            },
        }
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        if names:
            operation["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ]
        if schema := _BODIES.get((route.method, path)):
            content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
            operation["requestBody"] = {"required": True, "content": content}
        paths.setdefault(path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "agent2389", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}],
    }


def _page(document: dict[str, Any]) -> str:
    rows = "".join(
        f"<dt><b>{method.upper()}</b> <code>{html.escape(path)}</code></dt>"
        f"<dd>{html.escape(operation['summary'])}</dd>"
        for path, operations in sorted(document["paths"].items())
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>agent2389 API</title>'
        f"<style>{_STYLE}</style><h1>agent2389 API</h1>"
        '<p>Machine-readable: <a href="/api/v1/openapi.json">/api/v1/openapi.json</a></p>'
        f"<dl>{rows}</dl></html>"
    )
