"""The s3 toolkit: objects of one bucket below one prefix, to and from the workspace."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import msgspec

from agent2389.config.environment import read_variable
from agent2389.errors import ConfigurationError
from agent2389.tools.paths import NameRefused, parts_of
from agent2389.tools.port import Call, Effect, TaskScope, Tool, ToolOutput, ToolSettings
from agent2389.tools.secret_values import SecretValues
from agent2389.tools.tool_settings import read_settings
from agent2389.tools.workspace import MAX_FILE_BYTES, read_bytes, write_bytes

MAX_LISTED = 1000


class S3Settings(msgspec.Struct, frozen=True, kw_only=True):
    """``[toolkit_config.s3]``: ``url`` is ``s3://bucket/prefix``, or ``file:///folder`` on one machine.

    ``endpoint`` names an S3-compatible server. Without keys the usual sources of the AWS world are asked
    (role of the machine, web identity), by obstore.
    """

    url: str
    endpoint: str | None = None
    region: str | None = None
    access_key_id_env: str = "AWS_ACCESS_KEY_ID"
    secret_access_key_env: str = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the name of a variable
    session_token_env: str = "AWS_SESSION_TOKEN"  # noqa: S105 - the name of a variable
    allow_http: bool = False
    read_only: bool = False
    seconds: Annotated[float, msgspec.Meta(gt=0, le=600)] = 60.0


class S3Toolkit:
    """s3_list, s3_download, s3_upload, s3_delete. No key leaves the configured prefix."""

    name = "s3"

    def __init__(self, settings: ToolSettings | None = None) -> None:
        self._settings = settings or ToolSettings()
        self._secrets = SecretValues()
        self._form: S3Settings | None = None
        self._store: Any = None

    def missing(self) -> str | None:
        """Needs the extra ``s3`` and a bucket."""
        if find_spec("obstore") is None:
            return "it needs the optional dependencies 's3': pip install 'agent2389[s3]'"
        if "url" not in self._settings.values:
            return 'toolkit_config.s3.url is not set: write url = "s3://bucket/prefix"'
        return None

    def check(self) -> None:
        """Raise ``ConfigurationError`` for mistakes in the file; looks at nothing else."""
        self._form = read_settings(self._settings.values, S3Settings, where="toolkit_config.s3")
        if urlsplit(self._form.url).scheme not in ("s3", "file"):
            raise ConfigurationError(
                f"toolkit_config.s3.url: {self._form.url!r} is no s3:// or file:// URL",
                hint='write url = "s3://bucket/prefix"',
            )

    async def open(self) -> None:
        """Make the client; the store is not asked yet. Raises ``ConfigurationError``."""
        self.check()
        assert self._form is not None
        self._store = await asyncio.to_thread(_open_store, self._form, self._secrets, self._settings.proxy)

    async def close(self) -> None:
        """Obstore closes its connections itself."""
        self._store = None

    def tools(self) -> tuple[Tool, ...]:
        """Four tools; two with ``read_only``."""
        reading = (
            self._tool("s3_list", "List stored objects.", _LIST, self._list, Effect.PURE),
            self._tool(
                "s3_download", "Copy an object into the workspace.", _COPY, self._download, Effect.IDEMPOTENT
            ),
        )
        if self._form is not None and self._form.read_only:
            return reading
        return (
            *reading,
            self._tool(
                "s3_upload",
                "Store a file of the workspace, replacing an object of that key.",
                _COPY,
                self._upload,
                Effect.IDEMPOTENT,
            ),
            self._tool("s3_delete", "Delete an object.", _DELETE, self._delete, Effect.IDEMPOTENT),
        )

    def _tool(
        self, name: str, description: str, parameters: dict[str, Any], work: Call, effect: Effect
    ) -> Tool:
        seconds = self._form.seconds if self._form else 60.0
        return Tool(
            name=name,
            description=description,
            parameters=parameters,
            call=self._guarded(work),
            effect=effect,
            acts_outside=name in ("s3_upload", "s3_delete"),
            timeout=seconds,
        )

    def _guarded(self, work: Callable[[Mapping[str, Any], TaskScope], Awaitable[ToolOutput]]) -> Call:
        async def call(arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
            from obstore.exceptions import BaseError, NotFoundError  # noqa: PLC0415 - an optional extra

            try:
                return await work(arguments, scope)
            except NameRefused as refused:
                return ToolOutput(text=f"refused: {refused}", failed=True)
            except (NotFoundError, FileNotFoundError):
                return ToolOutput(text="there is no such object or file", failed=True)
            except BaseError as error:
                # Its text holds the request's address and sometimes its signature.
                return ToolOutput(text=f"the store answered with {type(error).__name__}", failed=True)
            except OSError as error:
                return ToolOutput(text=f"failed: {error.strerror or 'no such file'}", failed=True)

        return call

    async def _list(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:  # noqa: ARG002
        import obstore  # noqa: PLC0415 - an optional extra

        prefix = _key(arguments["prefix"]) if arguments.get("prefix") else None
        found: list[dict[str, Any]] = []
        more = False
        async for batch in obstore.list(self._store, prefix, chunk_size=200):
            found += [{"key": item["path"], "bytes": item["size"]} for item in batch]
            if len(found) > MAX_LISTED:
                more = True
                break
        lines = [f"{item['key']} ({item['bytes']} bytes)" for item in found[:MAX_LISTED]]
        if more:
            lines.append(f"[cut: more than {MAX_LISTED} objects; name a prefix]")
        return ToolOutput(
            text=self._secrets.hide("\n".join(lines)) or "no objects", data=found[:MAX_LISTED], untrusted=True
        )

    async def _download(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
        import obstore  # noqa: PLC0415 - an optional extra

        key, path = _key(arguments["key"]), arguments.get("path") or arguments["key"]
        result = await obstore.get_async(self._store, key)
        if result.meta["size"] > MAX_FILE_BYTES:
            raise NameRefused(f"the object is larger than {MAX_FILE_BYTES} bytes")
        content = bytes(await result.bytes_async())
        await asyncio.to_thread(write_bytes, scope.workspace, path, content)
        return ToolOutput(text=f"wrote {len(content)} bytes to {path}", changed_files=True, untrusted=True)

    async def _upload(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
        import obstore  # noqa: PLC0415 - an optional extra

        key, path = _key(arguments["key"]), arguments.get("path") or arguments["key"]
        content = await asyncio.to_thread(read_bytes, scope.workspace, path)
        await obstore.put_async(self._store, key, content)
        return ToolOutput(text=f"stored {len(content)} bytes as {key}")

    async def _delete(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:  # noqa: ARG002
        import obstore  # noqa: PLC0415 - an optional extra

        key = _key(arguments["key"])
        # Deleting what is gone already is done already: a repeated call must not fail.
        with contextlib.suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)
        return ToolOutput(text=f"deleted {key}")


def _key(text: str) -> str:
    """A key below the prefix; the same rules as for file names keep ``..`` and the like out."""
    return "/".join(parts_of(text))


def _open_store(form: S3Settings, secrets: SecretValues, proxy: str | None) -> Any:
    from obstore.exceptions import BaseError  # noqa: PLC0415 - an optional extra
    from obstore.store import LocalStore, S3Store  # noqa: PLC0415

    address = urlsplit(form.url)
    if address.scheme == "file":
        folder = Path(unquote(address.path))
        if not folder.is_absolute():
            raise ConfigurationError("toolkit_config.s3.url: file:// needs an absolute folder")
        return LocalStore(prefix=folder, mkdir=True)
    if not address.netloc:
        raise ConfigurationError("toolkit_config.s3.url names no bucket", hint='write "s3://bucket/prefix"')
    values: dict[str, Any] = {"region": form.region or "us-east-1"}
    for key, variable in (
        ("access_key_id", form.access_key_id_env),
        ("secret_access_key", form.secret_access_key_env),
        ("session_token", form.session_token_env),
    ):
        value = read_variable(os.environ, variable)
        if value is not None:
            values[key] = secrets.add(value)
    if form.endpoint:
        values |= {"endpoint": form.endpoint, "virtual_hosted_style_request": False}
    options: Any = {"allow_http": form.allow_http, "timeout": timedelta(seconds=form.seconds)}
    if proxy:
        options["proxy_url"] = proxy
    try:
        return S3Store(
            address.netloc, prefix=address.path.strip("/") or None, client_options=options, **values
        )
    except BaseError as error:
        raise ConfigurationError(f"toolkit_config.s3: {type(error).__name__}") from None


_KEY = {"type": "string", "description": "name of the object", "maxLength": 1024}
_PATH = {
    "type": "string",
    "description": "file in the workspace; the key when absent",
    "minLength": 1,
    "maxLength": 1024,
}
_LIST: dict[str, Any] = {
    "type": "object",
    "properties": {"prefix": {"type": "string", "description": "folder of keys", "maxLength": 1024}},
    "additionalProperties": False,
}
_COPY: dict[str, Any] = {
    "type": "object",
    "properties": {"key": _KEY, "path": _PATH},
    "required": ["key"],
    "additionalProperties": False,
}
_DELETE: dict[str, Any] = {
    "type": "object",
    "properties": {"key": _KEY},
    "required": ["key"],
    "additionalProperties": False,
}
