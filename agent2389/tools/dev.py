"""The dev toolkit: commands, compilers and test runs in the sandbox of the task's workspace."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from agent2389.errors import ConfigurationError
from agent2389.tools.paths import RESERVED, NameRefused, parts_of
from agent2389.tools.port import Effect, TaskScope, Tool, ToolOutput, ToolSettings
from agent2389.tools.sandbox import Limits, Outcome, Sandbox, missing_part
from agent2389.tools.tool_settings import read_settings

MAX_COMMAND = 8 * 1024
AFTER_SECONDS = 15.0
"""Setting up and tidying come on top of a command's own seconds."""

# One line of sh for each ending; $1 is the file. Warnings are wanted, programs are not kept.
_COMPILERS = {
    ".py": 'python3 -m py_compile "$1"',
    ".sh": 'sh -n "$1"',
    ".c": 'cc -Wall -Wextra -o /tmp/program "$1"',
    ".cc": 'c++ -Wall -Wextra -o /tmp/program "$1"',
    ".cpp": 'c++ -Wall -Wextra -o /tmp/program "$1"',
    ".rs": 'rustc -o /tmp/program "$1"',
    ".go": 'go vet "$1"',
    ".java": 'javac -d /tmp "$1"',
    ".js": 'node --check "$1"',
    ".mjs": 'node --check "$1"',
    ".ts": 'tsc --noEmit "$1"',
}
# $1 is the folder. The first kind of project that the folder shows decides.
_TESTS = """cd "$1" || exit 2
if [ -f Cargo.toml ]; then exec cargo test --offline
elif [ -f go.mod ]; then exec go test ./...
elif [ -f package.json ]; then exec npm test --silent
elif [ -f Makefile ] && grep -q '^test:' Makefile; then exec make test
elif python3 -c 'import pytest' 2>/dev/null; then exec python3 -m pytest -q -p no:cacheprovider
else exec python3 -m unittest discover -v
fi"""


class DevSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[toolkit_config.dev]``. Times in seconds, sizes in MiB; sizes count for all processes together."""

    sandbox: Literal["bubblewrap"] = "bubblewrap"
    network: bool = False
    allowed_commands: tuple[str, ...] = ()
    """Absent: any command, in a shell. Named: only these programs, and no shell."""
    readable: tuple[str, ...] = ()
    """More folders of this machine that commands may read."""
    seconds: float = 60.0
    cpu_seconds: int = 60
    memory_mib: int = 1024
    processes: int = 64
    open_files: int = 256
    file_mib: int = 32
    disk_mib: int = 256
    files: int = 1000


class DevToolkit:
    """run_command, compile_code and run_tests."""

    name = "dev"

    def __init__(self, settings: ToolSettings) -> None:
        self._values = settings.values
        self._settings = DevSettings()
        self._sandbox: Sandbox | None = None

    def missing(self) -> str | None:
        """Needs bubblewrap and util-linux."""
        return missing_part()

    def check(self) -> None:
        """Raise ``ConfigurationError`` for mistakes in ``[toolkit_config.dev]``."""
        where = "toolkit_config.dev"
        settings = self._settings = read_settings(self._values, DevSettings, where=where)
        for name in ("seconds", "cpu_seconds", "memory_mib", "processes", "open_files", "file_mib",
                     "disk_mib", "files"):  # fmt: skip
            if getattr(settings, name) <= 0:
                raise ConfigurationError(f"{where}.{name} must be greater than 0")
        for folder in settings.readable:
            if not Path(folder).is_absolute() or not Path(folder).is_dir() or Path(folder) == Path("/"):
                raise ConfigurationError(
                    f"{where}.readable: {folder!r} is not the absolute name of a folder below /"
                )

    async def open(self) -> None:
        """Try the sandbox. Raises ``ConfigurationError`` where the machine does not allow one."""
        self.check()
        settings = self._settings
        limits = msgspec.convert(settings, Limits, from_attributes=True)
        readable = [Path(folder) for folder in settings.readable]
        sandbox = Sandbox(limits, network=settings.network, readable=readable, reserved=RESERVED)
        await sandbox.probe()
        self._sandbox = sandbox

    async def close(self) -> None:
        """Nothing to close: no command outlives its call."""

    def tools(self) -> tuple[Tool, ...]:
        """The three tools; none of them may be repeated without asking."""
        limit = self._settings.seconds
        path = {"type": "string", "description": "name relative to the workspace"}
        return (
            self._tool(
                "run_command",
                f"Run a command in the workspace, sandboxed, for at most {limit:g} seconds.",
                {
                    "command": {"type": "string", "minLength": 1, "maxLength": MAX_COMMAND},
                    "seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 86400},
                },
                "command",
            ),
            self._tool(
                "compile_code",
                f"Check that a source file compiles: {', '.join(sorted(_COMPILERS))}.",
                {"path": path},
                "path",
            ),
            self._tool("run_tests", "Run the tests of a folder of the workspace.", {"path": path}),
        )

    def _tool(self, name: str, description: str, properties: dict[str, Any], *required: str) -> Tool:
        call = {"run_command": self._command, "compile_code": self._compile, "run_tests": self._test}[name]
        return Tool(
            name=name,
            description=description,
            parameters={
                "type": "object",
                "properties": properties,
                "required": list(required),
                "additionalProperties": False,
            },
            call=call,
            effect=Effect.UNSAFE,
            timeout=self._settings.seconds + AFTER_SECONDS,
        )

    async def _command(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
        text = arguments["command"]
        if "\x00" in text:
            return _refused("a command cannot hold the character NUL")
        allowed = self._settings.allowed_commands
        if not allowed:
            return await self._run(("sh", "-c", text), scope, arguments.get("seconds"))
        try:
            words = shlex.split(text)
        except ValueError as error:
            return _refused(f"the command cannot be read: {error}")
        if not words or words[0] not in allowed:
            return _refused(f"only these commands may run here, without a shell: {', '.join(allowed)}")
        return await self._run(tuple(words), scope, arguments.get("seconds"))

    async def _compile(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
        try:
            name = "/".join(parts_of(arguments["path"]))
        except NameRefused as refused:
            return _refused(str(refused))
        compiler = _COMPILERS.get(Path(name).suffix.lower())
        if compiler is None:
            return _refused(
                f"no compiler is known for this ending; known are {', '.join(sorted(_COMPILERS))}"
            )
        if refusal := self._not_allowed(compiler.split()[0]):
            return refusal
        return await self._run(("sh", "-c", compiler, "sh", f"./{name}"), scope)

    async def _test(self, arguments: Mapping[str, Any], scope: TaskScope) -> ToolOutput:
        wanted = arguments.get("path", ".")
        try:
            name = "." if wanted in (".", "./") else "./" + "/".join(parts_of(wanted))
        except NameRefused as refused:
            return _refused(str(refused))
        if refusal := self._not_allowed("pytest"):
            return refusal
        return await self._run(("sh", "-c", _TESTS, "sh", name), scope)

    def _not_allowed(self, program: str) -> ToolOutput | None:
        allowed = self._settings.allowed_commands
        if not allowed or program in allowed or f"{program.removesuffix('3')}" in allowed:
            return None
        return _refused(f"{program} is not among the commands that may run here: {', '.join(allowed)}")

    async def _run(
        self, command: tuple[str, ...], scope: TaskScope, seconds: float | None = None
    ) -> ToolOutput:
        if self._sandbox is None:
            return _refused("the sandbox is not open")
        words = [word.encode("utf-8", "replace").decode() for word in command]
        return _told(await self._sandbox.run(words, scope.workspace, seconds=seconds))


def _told(outcome: Outcome) -> ToolOutput:
    end = f"stopped: {outcome.stopped}" if outcome.stopped else f"exit code {outcome.code}"
    return ToolOutput(
        text=f"{end}\n{outcome.output}",
        data={"exit_code": outcome.code, "stopped": outcome.stopped},
        failed=outcome.stopped is not None or outcome.code != 0,
        changed_files=True,
        untrusted=True,
    )


def _refused(reason: str) -> ToolOutput:
    return ToolOutput(text=f"refused: {reason}", failed=True)
