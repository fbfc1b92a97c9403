"""OpenAPI 3.1 from the route table and the records, and a page that shows it offline."""

import html
import inspect
from typing import Any

import msgspec
from aiohttp import web

from agent2389 import __version__
from agent2389.insight.jobs import Trace
from agent2389.ledger.journal import SpendRow, TranscriptEntry
from agent2389.ledger.views import AgentRow, ApprovalRow, DecisionRow, JobRow, PoolRow
from agent2389.ops import requests
from agent2389.wire.submission import Submission

_BODIES: dict[tuple[str, str], type[msgspec.Struct]] = {
    ("POST", "/api/v1/jobs"): Submission,
    ("POST", "/api/v1/jobs/{job}/retry"): requests.Retry,
    ("POST", "/api/v1/jobs/{job}/cancel"): requests.Cancel,
    ("POST", "/api/v1/jobs/{job}/clone"): requests.Clone,
    ("POST", "/api/v1/jobs/{job}/escalate"): requests.Escalate,
    ("POST", "/api/v1/jobs/{job}/override"): requests.Override,
    ("POST", "/api/v1/jobs/{job}/decide"): requests.Decide,
    ("POST", "/api/v1/approvals/{approval}"): requests.DecideApproval,
    ("POST", "/api/v1/agents/{agent}/{action}"): requests.Command,
    ("POST", "/api/v1/tasks/{task}/assign"): requests.Assign,
    ("POST", "/api/v1/jobs/{job}/resolve"): requests.Resolve,
    ("POST", "/api/v1/budget"): requests.SetLimit,
}
_OPTIONAL = frozenset({requests.Retry, requests.Cancel, requests.Clone, requests.Escalate, requests.Command})
_LISTS: dict[str, type[msgspec.Struct]] = {
    "/api/v1/jobs": JobRow,
    "/api/v1/agents": AgentRow,
    "/api/v1/pools": PoolRow,
    "/api/v1/approvals": ApprovalRow,
    "/api/v1/decisions": DecisionRow,
    "/api/v1/jobs/{job}/transcript": TranscriptEntry,
    "/api/v1/budget": SpendRow,
}
_ONE: dict[str, type[msgspec.Struct]] = {
    "/api/v1/jobs/{job}/trace": Trace,
    "/api/v1/approvals/{approval}": ApprovalRow,
}
_QUERIES = {
    "/api/v1/jobs": ("limit", "state", "cursor"),
    "/api/v1/jobs/{job}/result": ("wait",),
    "/api/v1/jobs/{job}/events": ("after", "stream"),
    "/api/v1/jobs/{job}/transcript": ("format", "skip", "limit"),
    "/api/v1/approvals": ("limit", "state"),
    "/api/v1/events": ("after", "limit"),
    "/api/v1/decisions": ("limit", "cursor", "since"),
}
_HEADERS = {
    "/api/v1/jobs": ("Idempotency-Key",),
    "/api/v1/jobs/{job}/retry": ("Idempotency-Key",),
    "/api/v1/jobs/{job}/clone": ("Idempotency-Key",),
    "/api/v1/jobs/{job}/override": ("Idempotency-Key",),
    "/api/v1/jobs/{job}/decide": ("If-Match",),
    "/api/v1/approvals/{approval}": ("If-Match",),
}
_READ_HEADERS = {"/api/v1/jobs/{job}/events": ("Last-Event-ID",)}
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
    shown = {*_BODIES.values(), *_LISTS.values(), *_ONE.values()}
    schemas = msgspec.json.schema_components(
        sorted(shown, key=lambda kind: kind.__name__), ref_template="#/components/schemas/{name}"
    )[1]
    paths: dict[str, dict[str, Any]] = {}
    for route in app.router.routes():
        if route.method != "HEAD" and route.resource is not None:
            path = route.resource.canonical
            summary = (inspect.getdoc(route.handler) or path).splitlines()[0]
            paths.setdefault(path, {})[route.method.lower()] = _operation(route.method, path, summary)
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


def _operation(method: str, path: str, summary: str) -> dict[str, Any]:
    fine: dict[str, Any] = {"description": "what was asked for"}
    if method == "GET" and (schema := _answer(path)):
        fine["content"] = {"application/json": {"schema": schema}}
    problem = {"description": "a problem (RFC 9457)", "content": {"application/problem+json": {}}}
    operation: dict[str, Any] = {"summary": summary, "responses": {"2XX": fine, "4XX": problem}}
    if parameters := _parameters(method, path):
        operation["parameters"] = parameters
    if kind := _BODIES.get((method, path)):
        content = {"application/json": {"schema": _reference(kind)}}
        operation["requestBody"] = {"required": kind not in _OPTIONAL, "content": content}
    return operation


def _parameters(method: str, path: str) -> list[dict[str, Any]]:
    names = [("path", part[1:-1]) for part in path.split("/") if part.startswith("{")]
    if method == "GET":
        names += [("query", name) for name in _QUERIES.get(path, ())]
        names += [("header", name) for name in _READ_HEADERS.get(path, ())]
    elif method == "POST":
        names += [("header", name) for name in _HEADERS.get(path, ())]
    return [
        {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}
        for place, name in names
    ]


def _answer(path: str) -> dict[str, Any] | None:
    if kind := _ONE.get(path):
        return _reference(kind)
    if kind := _LISTS.get(path):
        data = {"type": "array", "items": _reference(kind)}
        return {"type": "object", "properties": {"data": data, "next_cursor": {"type": ["string", "null"]}}}
    return None


def _reference(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


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
