"""The neo4j toolkit: read a graph database, write where the file allows it, and never leave it."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec

from agent2389.config.environment import read_variable
from agent2389.errors import ConfigurationError, ToolFailed
from agent2389.tools.graph_rules import SCHEMA_FORM, GraphSchema, broken_rules
from agent2389.tools.port import Effect, TaskScope, Tool, ToolOutput, ToolSettings
from agent2389.tools.secret_values import SecretValues
from agent2389.tools.tool_settings import read_settings

if TYPE_CHECKING:
    from agent2389.tools.graph_driver import Graph

SCHEMES = ("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc")
MAX_ROW_CHARACTERS = 2000


class GraphSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[toolkit_config.neo4j]``: ``url`` or the variable that ``url_env`` names, ``auth_env`` a login
    ``user/password``, the database, and whether queries may write.

    ``procedures`` may be called beside those that read the schema. ``seconds`` for each query.
    """

    url: str | None = None
    url_env: str = "NEO4J_URI"
    auth_env: str = "NEO4J_AUTH"
    database: str | None = None
    read_only: bool = True
    procedures: tuple[str, ...] = ()
    max_rows: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 200
    seconds: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0


class GraphToolkit:
    """execute_cypher_query, get_database_schema, validate_schema_compliance."""

    name = "neo4j"

    def __init__(self, settings: ToolSettings | None = None) -> None:
        self._settings = settings or ToolSettings()
        self._secrets = SecretValues()
        self._form = GraphSettings()
        self._graph: Graph | None = None

    def missing(self) -> str | None:
        """Needs the extra ``graph`` and the address of a database."""
        if find_spec("neo4j") is None:
            return "it needs the optional dependencies 'graph': pip install 'agent2389[graph]'"
        variable = self._settings.values.get("url_env", GraphSettings().url_env)
        if "url" not in self._settings.values and not os.environ.get(str(variable)):
            return f"{variable} is not set"
        return None

    def check(self) -> None:
        """Raise ``ConfigurationError`` for mistakes in the file; looks at nothing else."""
        self._form = read_settings(self._settings.values, GraphSettings, where="toolkit_config.neo4j")
        if self._form.url is not None:
            _check_url(self._form.url, "toolkit_config.neo4j.url")

    async def open(self) -> None:
        """Connect and log in. Raises ``ConfigurationError`` and ``ToolFailed``."""
        from agent2389.tools.graph_driver import Graph  # noqa: PLC0415 - an optional, heavy SDK

        self.check()
        url = self._form.url or read_variable(os.environ, self._form.url_env) or ""
        _check_url(url, self._form.url_env)
        graph = Graph(
            url,
            self._login(),
            database=self._form.database,
            seconds=self._form.seconds,
            max_rows=self._form.max_rows,
            procedures=self._form.procedures,
        )
        try:
            await graph.connect()
        except BaseException:
            await graph.close()
            raise
        self._graph = graph

    async def close(self) -> None:
        """End the connections."""
        if self._graph is not None:
            await self._graph.close()
            self._graph = None

    def tools(self) -> tuple[Tool, ...]:
        """The three graph tools."""
        writes = not self._form.read_only
        may = "read or change" if writes else "read"
        return (
            Tool(
                name="execute_cypher_query",
                description=f"Run one Cypher query to {may} the graph. Values go into parameters as $name.",
                parameters=_QUERY,
                call=self._query,
                # Creating twice makes two: only a person may repeat a write in doubt.
                effect=Effect.UNSAFE if writes else Effect.PURE,
                timeout=self._form.seconds * 2 + 5,
                output_cap=60_000,
            ),
            Tool(
                name="get_database_schema",
                description="Tell the labels, relationship types, properties and constraints of the graph.",
                parameters={"type": "object", "properties": {}, "additionalProperties": False},
                call=self._schema,
                timeout=self._form.seconds * 2 + 5,
                output_cap=60_000,
            ),
            Tool(
                name="validate_schema_compliance",
                description="Check the data of the graph against a schema; tells what breaks which rule.",
                parameters=SCHEMA_FORM,
                call=self._validate,
                timeout=self._form.seconds * 4 + 5,
            ),
        )

    async def _query(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:  # noqa: ARG002
        graph = self._opened()
        rows = await graph.run(
            arguments["query"], arguments.get("parameters", {}), writes=not self._form.read_only
        )
        lines = [_row_text(row) for row in rows.rows]
        if rows.more:
            lines.append(f"[cut: more than {self._form.max_rows} rows; add LIMIT or count]")
        if rows.changes:
            lines.append("changed: " + ", ".join(f"{name} {count}" for name, count in rows.changes.items()))
        text = self._secrets.hide("\n".join(lines)) or "no rows"
        return ToolOutput(text=text, data={"rows": rows.rows, "changes": rows.changes}, untrusted=True)

    async def _schema(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:  # noqa: ARG002
        schema = await self._opened().schema()
        lines = [f"{kind}: {', '.join(names) or 'none'}" for kind, names in schema.items()]
        return ToolOutput(text="\n".join(lines), data=schema, untrusted=True)

    async def _validate(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:  # noqa: ARG002
        findings = await broken_rules(self._opened(), msgspec.convert(arguments, GraphSchema))
        lines = [f"{item.rule}: {item.count} (such as {', '.join(item.examples)})" for item in findings]
        return ToolOutput(
            text="\n".join(lines) or "the graph complies",
            data={"complies": not findings, "findings": msgspec.to_builtins(findings)},
            untrusted=bool(findings),
        )

    def _opened(self) -> "Graph":
        if self._graph is None:
            raise ToolFailed("the graph database is not open", retryable=False)
        return self._graph

    def _login(self) -> tuple[str, str] | None:
        """User and password; ``none`` or nothing for a server that asks for none."""
        value = read_variable(os.environ, self._form.auth_env)
        if value is None or value == "none":
            return None
        user, slash, password = value.partition("/")
        if not slash or not user:
            raise ConfigurationError(
                f"{self._form.auth_env} is no login", hint=f"export {self._form.auth_env}=user/password"
            )
        return user, self._secrets.add(password)


def _check_url(url: str, where: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in SCHEMES and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        good = False
    if not good:
        raise ConfigurationError(
            f"{where} is no address of a graph database", hint="write neo4j://host:7687 or bolt://host:7687"
        )


def _row_text(row: Mapping[str, Any]) -> str:
    text = msgspec.json.encode(row).decode()
    return text if len(text) <= MAX_ROW_CHARACTERS else text[:MAX_ROW_CHARACTERS] + " [cut]"


_QUERY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "minLength": 1, "maxLength": 10_000},
        "parameters": {"type": "object", "description": "values that the query names as $name"},
    },
    "required": ["query"],
    "additionalProperties": False,
}
