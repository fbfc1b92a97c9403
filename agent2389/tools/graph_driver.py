"""The official Neo4j driver behind the neo4j toolkit: one query, planned before it runs, within limits.

The server plans every query first (EXPLAIN) and the plan is judged, not the text: a query that a
model wrote may be spelled in any way, its operators have one name each.
"""

import contextlib
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, LiteralString

import msgspec
import neo4j
import neo4j.exceptions
import neo4j.graph
import neo4j.spatial
import neo4j.time

from agent2389.errors import ToolFailed

CONNECT_SECONDS = 10.0
MAX_LIST = 1000
READ_PROCEDURES = (
    "db.labels",
    "db.relationshipTypes",
    "db.propertyKeys",
    "db.schema.nodeTypeProperties",
    "db.schema.relTypeProperties",
    "db.schema.visualization",
    "db.index.fulltext.queryNodes",
    "db.index.fulltext.queryRelationships",
    "db.index.vector.queryNodes",
    "db.index.vector.queryRelationships",
)
REFUSED_OPERATORS = ("LoadCSV", "Show", "Terminate", "AdministrationCommand")
"""Beginnings of operators that reach other machines, other people's queries or the server's settings."""
LABELS = "CALL db.labels() YIELD label RETURN label AS name ORDER BY name"
TYPES = "CALL db.relationshipTypes() YIELD relationshipType RETURN relationshipType AS name ORDER BY name"
NODE_PROPERTIES = (
    "CALL db.schema.nodeTypeProperties() YIELD nodeLabels, propertyName, propertyTypes, mandatory "
    "RETURN nodeLabels AS of, propertyName AS name, propertyTypes AS types ORDER BY of, name"
)
TYPE_PROPERTIES = (
    "CALL db.schema.relTypeProperties() YIELD relType, propertyName, propertyTypes "
    "RETURN [relType] AS of, propertyName AS name, propertyTypes AS types ORDER BY of, name"
)
CONSTRAINTS = "SHOW CONSTRAINTS YIELD name, type, labelsOrTypes, properties"


class Rows(msgspec.Struct, frozen=True):
    """What a query returned as plain JSON values; ``more`` rows than wanted, ``changes`` it made."""

    rows: list[dict[str, Any]]
    more: bool = False
    changes: dict[str, int] = {}


class Graph:
    """``connect``, then ``run`` and ``schema`` from any task, then ``close``. Times in seconds."""

    def __init__(
        self,
        url: str,
        login: tuple[str, str] | None,
        *,
        database: str | None,
        seconds: float,
        max_rows: int,
        procedures: Sequence[str] = (),
    ) -> None:
        self._driver = neo4j.AsyncGraphDatabase.driver(
            url,
            auth=login,
            connection_timeout=CONNECT_SECONDS,
            connection_acquisition_timeout=CONNECT_SECONDS,
            max_connection_pool_size=8,
            notifications_min_severity="OFF",
            user_agent="agent2389",
        )
        self._database = database
        self._seconds = seconds
        self._max_rows = max_rows
        self._procedures = {*READ_PROCEDURES, *procedures}

    async def connect(self) -> None:
        """One round trip with the login. Raises ``ToolFailed``."""
        with _failures():
            await self._run("RETURN 1 AS one", {})

    async def close(self) -> None:
        """End all connections."""
        await self._driver.close()

    async def run(self, query: str, parameters: Mapping[str, Any], *, writes: bool = False) -> Rows:
        """Plan, judge, then run ``query`` in a transaction of its own.

        Raises ``ToolFailed`` with the server's words when it refuses the query, and for a plan that
        writes without ``writes``, changes schema or settings, or leaves the database.
        """
        with _failures():
            await self._judge(query, parameters, writes=writes)
            return await self._run(query, parameters, writes=writes)

    async def schema(self) -> dict[str, list[str]]:
        """Labels, relationship types, their properties with types, constraints. Raises ``ToolFailed``."""
        with _failures():
            labels = await self._run(LABELS, {})
            types = await self._run(TYPES, {})
            properties = (await self._run(NODE_PROPERTIES, {})).rows
            properties += (await self._run(TYPE_PROPERTIES, {})).rows
            constraints = await self._run(CONSTRAINTS, {})
        return {
            "labels": [row["name"] for row in labels.rows],
            "relationship types": [row["name"] for row in types.rows],
            "properties": [_property_text(row) for row in properties if row["name"] is not None],
            "constraints": [
                f"{row['type']} on {':'.join(row['labelsOrTypes'])}({', '.join(row['properties'] or [])})"
                for row in constraints.rows
            ],
        }

    async def _judge(self, query: str, parameters: Mapping[str, Any], *, writes: bool) -> None:
        async with self._transaction(writes=False) as transaction:
            summary = await (await transaction.run(_text(f"EXPLAIN {query}"), dict(parameters))).consume()
        allowed = ("r", "rw", "w") if writes else ("r",)
        if summary.query_type not in allowed or summary.plan is None:
            may = "reading and writing data" if writes else "reading"
            raise ToolFailed(f"only {may} is allowed here", retryable=False)
        for operator, details in _operators(summary.plan):
            if operator.startswith(REFUSED_OPERATORS):
                raise ToolFailed(f"{operator} is not allowed here", retryable=False)
            if "ProcedureCall" in operator and details.partition("(")[0].strip() not in self._procedures:
                raise ToolFailed(
                    f"procedure {details.partition('(')[0].strip()[:100]} is not allowed here",
                    retryable=False,
                )

    async def _run(self, query: str, parameters: Mapping[str, Any], *, writes: bool = False) -> Rows:
        async with self._transaction(writes=writes) as transaction:
            result = await transaction.run(_text(query), dict(parameters))
            rows: list[dict[str, Any]] = []
            more = False
            async for record in result:
                if len(rows) == self._max_rows:
                    more = True
                    break
                rows.append(_plain_items(record))
            counters = (await result.consume()).counters
            if writes:
                await transaction.commit()
        changes = {name: count for name, count in vars(counters).items() if type(count) is int and count}
        return Rows(
            rows, more, {name.strip("_"): int(count) for name, count in changes.items()} if writes else {}
        )

    @contextlib.asynccontextmanager
    async def _transaction(self, *, writes: bool) -> AsyncIterator[neo4j.AsyncTransaction]:
        """Rolled back unless it was committed; the server ends it when it takes too long."""
        mode = neo4j.WRITE_ACCESS if writes else neo4j.READ_ACCESS
        async with (
            self._driver.session(
                database=self._database, default_access_mode=mode, fetch_size=self._max_rows + 1
            ) as session,
            await session.begin_transaction(timeout=self._seconds) as transaction,
        ):
            yield transaction


def plain(value: Any) -> Any:
    """A value of the graph as JSON can hold it."""
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes() | bytearray():
            return f"[{len(value)} bytes]"
        case neo4j.graph.Node():
            return {"id": value.element_id, "labels": sorted(value.labels), "properties": _plain_items(value)}
        case neo4j.graph.Relationship():
            ends = [None if node is None else node.element_id for node in value.nodes]
            return {
                "id": value.element_id,
                "type": value.type,
                "from": ends[0],
                "to": ends[1],
                "properties": _plain_items(value),
            }
        case neo4j.graph.Path():
            nodes, ties = list(value.nodes), list(value.relationships)
            return {"nodes": [plain(item) for item in nodes], "relationships": [plain(item) for item in ties]}
        case neo4j.spatial.Point():
            return {"srid": value.srid, "coordinates": list(value)}
        case neo4j.time.Date() | neo4j.time.Time() | neo4j.time.DateTime() | neo4j.time.Duration():
            return value.iso_format()
        case Mapping():
            return _plain_items(value)
        case list() | tuple():
            return [plain(item) for item in value[:MAX_LIST]]
        case _:
            return str(value)


def _plain_items(value: Any) -> dict[str, Any]:
    return {str(key): plain(item) for key, item in value.items()}


def _operators(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name without database and details of every operator of a plan."""
    yield plan["operatorType"].partition("@")[0], str(plan.get("args", {}).get("Details", ""))
    for child in plan.get("children", []):
        yield from _operators(child)


def _property_text(row: Mapping[str, Any]) -> str:
    return f"{':'.join(row['of'])}.{row['name']} {' or '.join(row['types'] or ['?'])}"


def _text(query: str) -> LiteralString:
    # The driver's types ask for literals; what a model wrote was judged by its plan.
    return query


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except neo4j.exceptions.AuthError:
        raise ToolFailed(
            "the graph database refuses the login", retryable=False, hint="set NEO4J_AUTH"
        ) from None
    except (neo4j.exceptions.ServiceUnavailable, neo4j.exceptions.SessionExpired, OSError) as error:
        raise ToolFailed(f"the graph database does not answer ({type(error).__name__})") from None
    except neo4j.exceptions.Neo4jError as error:
        # Server messages tell about the query; they are the model's way to a better one.
        message = (error.message or "").splitlines()[0][:400]
        raise ToolFailed(f"the graph database refuses: {message}", retryable=False) from None
    except neo4j.exceptions.DriverError as error:
        raise ToolFailed(f"the query failed ({type(error).__name__})", retryable=False) from None
    except (TypeError, ValueError) as error:
        raise ToolFailed(f"a parameter cannot be sent: {str(error)[:200]}", retryable=False) from None
