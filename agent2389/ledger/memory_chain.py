"""The sealed chain in memory: numbers, links, and what retention leaves of them."""

from collections.abc import Collection, Sequence

import msgspec

from agent2389.ledger.memory_tables import BuriedLink, Key, Tables, digest
from agent2389.ledger.records import Change

ENDS_OF_JOBS = frozenset({"job.completed", "job.failed", "job.cancelled", "job.expired"})


def seal(tables: Tables, limit: int) -> int:
    """Number events; the acts of people and the ends of jobs are chained."""
    sealed = 0
    while tables.unsealed and sealed < limit:
        event = tables.unsealed.popleft()
        tables.sealed_number += 1
        event.number = tables.sealed_number
        if "actor" in event.change.data or event.change.type in ENDS_OF_JOBS:
            event.before = tables.sealed_link
            event.link = tables.sealed_link = _link(event.number, event.before, event.change)
        sealed += 1
    return sealed


def _link(number: int, before: str, change: Change) -> str:
    return digest(f"{before}\x1f{number}\x1f".encode() + msgspec.json.encode(change))


def sealed_changes(tables: Tables, tenant: str, after: int, limit: int) -> Sequence[tuple[int, Change]]:
    """Events after a sealed number."""
    found = [
        (event.number, event.change)
        for event in tables.events
        if event.number is not None and event.number > after and event.change.tenant == tenant
    ]
    return tuple(found[:limit])


def broken_links(tables: Tables, limit: int) -> Sequence[int]:
    """Where the chain does not verify; what retention took away counts as it was."""
    links, broken = dict(tables.buried_links), set[int]()
    for event in tables.events:
        if event.number is not None and event.before is not None and event.link is not None:
            links[event.number] = BuriedLink(event.before, event.link)
            if event.link != _link(event.number, event.before, event.change):
                broken.add(event.number)
    follows = tables.chain_begins
    for number, link in sorted(links.items()):
        if link.before != follows:
            broken.add(number)
        follows = link.link
    if tables.sealed_link != follows:
        broken.add(tables.sealed_number)
    return tuple(sorted(broken)[:limit])


def bury_events(tables: Tables, jobs: Collection[Key]) -> None:
    """Delete the events of jobs, all of them sealed; their links stay while an older one is kept."""
    kept = []
    for event in tables.events:
        if (event.change.tenant, event.change.job_id) not in jobs:
            kept.append(event)
        elif event.number is not None and event.before is not None and event.link is not None:
            tables.buried_links[event.number] = BuriedLink(event.before, event.link)
    tables.events = kept
    oldest = min((event.number for event in kept if event.number and event.link), default=None)
    forgotten = [number for number in sorted(tables.buried_links) if oldest is None or number < oldest]
    for number in forgotten:
        tables.chain_begins = tables.buried_links.pop(number).link
