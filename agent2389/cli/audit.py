"""Verbs about the sealed chain: what people did and how jobs ended, and whether anybody changed it."""

import contextlib
from collections.abc import AsyncIterator

import msgspec

from agent2389.cli import output
from agent2389.cli.proving import NotClean, database_of, running_mesh
from agent2389.config.process import load_process
from agent2389.ledger.inspection import Inspector, Link
from agent2389.telemetry.logs import configure_logging

HEADS = ("number", "at", "type", "job", "by", "said")


async def listing(*, before: int | None, limit: int, as_json: bool) -> None:
    """The newest links, oldest first."""
    async with _inspector() as inspector:
        links = await inspector.audit(before, limit)
    if as_json:
        output.document(msgspec.to_builtins(links), count=len(links))
    else:
        output.table([_row(link) for link in links], HEADS)


async def verify(*, as_json: bool) -> None:
    """Compute every link anew. Raises ``NotClean`` with the numbers that do not follow."""
    async with _inspector() as inspector:
        broken = await inspector.broken_links()
        newest = await inspector.audit(None, 1)
    head = {"number": newest[-1].number, "hash": newest[-1].hash} if newest else None
    if as_json:
        output.document({"intact": not broken, "broken": broken, "head": head})
    elif not broken:
        output.data(
            f"intact up to event {head['number']}, {head['hash']}" if head else "nothing is sealed yet"
        )
    if broken:
        raise NotClean(
            f"events {', '.join(map(str, broken))} do not follow from the ones before them",
            hint="somebody changed or removed events; compare with a backup",
        )


def _row(link: Link) -> tuple[object, ...]:
    said = link.data.get("reason") or link.data.get("message") or ""
    return (link.number, link.at, link.type, link.job_id, link.data.get("actor"), said)


@contextlib.asynccontextmanager
async def _inspector() -> AsyncIterator[Inspector]:
    configure_logging("error", "pretty")
    process = load_process()
    inspector = await Inspector.open(database_of(process, running_mesh(process)))
    try:
        yield inspector
    finally:
        await inspector.close()
