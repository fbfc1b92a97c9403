"""The process under test, when its start command is known: start, stop, kill, and what it printed."""

import asyncio
import contextlib
import secrets
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path

from agent2389.errors import ConfigurationError
from agent2389.telemetry import children

STOP_SECONDS = 20.0
SECRET_WORDS = ("KEY", "PASSWORD", "TOKEN", "SECRET")
LEAST_SECRET = 12


class Subject:
    """Starts ``command`` with the kit's broker and model in its environment.

    The environment gets ``MQTT_BROKER_URL``, ``LLM_BASE_URL`` and ``OPENAI_BASE_URL``, and values made up
    for this run as ``OPENAI_API_KEY``, ``MQTT_USERNAME`` and ``MQTT_PASSWORD`` (the last two only where the
    broker's address brings no login).
    """

    def __init__(
        self, command: str, folder: Path, environ: Mapping[str, str], *, login: tuple[str, str] | None
    ) -> None:
        self._words = shlex.split(command)
        self._environ = dict(environ)
        self._environ["OPENAI_API_KEY"] = f"sk-conformance-{secrets.token_hex(12)}"
        user, password = login or ("conformance", f"conformance-{secrets.token_hex(12)}")
        self._environ["MQTT_USERNAME"], self._environ["MQTT_PASSWORD"] = user, password
        self._log_file = folder / "agent.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def log_file(self) -> Path:
        """Everything the process printed, over all its starts."""
        return self._log_file

    def secrets(self) -> dict[str, str]:
        """Names and values that must not show anywhere."""
        return {
            name: value
            for name, value in self._environ.items()
            if len(value) >= LEAST_SECRET
            and any(word in name.upper() for word in SECRET_WORDS)
            # A file's or a service's address may well be told.
            and not name.endswith(("_FILE", "_PATH", "_URL"))
        }

    async def start(self, broker_url: str, model_url: str, **environ: str) -> None:
        """Start the process. Raises ``ConfigurationError`` when there is no such program."""
        given = {
            **self._environ,
            "MQTT_BROKER_URL": broker_url,
            "LLM_BASE_URL": model_url,
            "OPENAI_BASE_URL": model_url,
            **environ,
        }
        try:
            self._process = await children.start(self._words, self._log_file, environ=given)
        except (OSError, IndexError) as error:
            raise ConfigurationError(
                f"the agent's command cannot be started: {error}", hint="check --start"
            ) from None

    async def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        if self._process is not None:
            await children.stop(self._process, seconds=STOP_SECONDS)

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    def printed(self) -> str:
        """What it printed so far."""
        try:
            return self._log_file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
