"""A workspace in a world worth breaking into: secrets beside it, in the environment and in its links."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent2389.config.model import AgentConfiguration, AgentSection
from agent2389.ledger.memory import MemoryLedger
from agent2389.tools.port import TaskScope, ToolOutput
from agent2389.tools.registry import ToolSet
from tests.support.jobs import claim_one, join, new_job

CANARY = "canary-71c0ffee"
ALL_TOOLKITS = (
    "workspace", "document", "echo", "todo", "web", "http", "s3", "citation", "requirements", "dev",
)  # fmt: skip
VARIABLES = ("OPENAI_API_KEY", "SERPER_API_KEY", "AWS_SECRET_ACCESS_KEY", "PARTNER_TOKEN", "DATABASE_URL")


class ToolWorld:
    """``workspace`` with all kinds of entries, ``outside`` with what must stay as it is."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "secret.txt").write_text(CANARY)
        self.objects = folder / "objects"
        self.objects.mkdir()
        (self.objects / "kept.txt").write_text("an object")
        self.workspace = folder / "workspace"
        self.workspace.mkdir(mode=0o700)
        for name in VARIABLES:
            monkeypatch.setenv(name, f"{CANARY}-{name.lower()}")
        self._fill()
        self.outside_before = self._seen_outside()
        self.scope = TaskScope(job_id="j", task_id="t", tenant="default", workspace=self.workspace)

    def _fill(self) -> None:
        (self.workspace / "notes.md").write_text("one two\nthree\n")
        (self.workspace / "binary.bin").write_bytes(bytes(range(256)))
        (self.workspace / "folder").mkdir()
        (self.workspace / "folder" / "a.txt").write_text("inside\n")
        (self.workspace / "link").symlink_to(self.outside / "secret.txt")
        (self.workspace / "folder-link").symlink_to(self.outside)
        (self.workspace / "root-link").symlink_to("/")
        (self.workspace / "loop").symlink_to("loop")
        (self.workspace / "environ").symlink_to("/proc/self/environ")
        (self.workspace / "inner-link").symlink_to("notes.md")
        os.link(self.outside / "secret.txt", self.workspace / "hard")
        os.mkfifo(self.workspace / "pipe")

    async def tools(self, toolkits: tuple[str, ...] = ALL_TOOLKITS) -> ToolSet:
        """The toolkits, open, with a secret in each that can hold one."""
        settings: dict[str, dict[str, Any]] = {
            "s3": {"url": self.objects.as_uri()},
            "http": {"secrets": {"192.0.2.1": {"headers_env": {"authorization": "PARTNER_TOKEN"}}}},
            "dev": {"seconds": 10, "memory_mib": 256, "disk_mib": 64},
        }
        configuration = AgentConfiguration(
            agent=AgentSection(id="a"),
            toolkits=toolkits,
            toolkit_config={name: settings[name] for name in toolkits if name in settings},
        )
        ledger = MemoryLedger()
        await ledger.submit(new_job("j"))
        claim = await claim_one(ledger, await join(ledger))
        self.scope = msgspec.structs.replace(self.scope, task_id=claim.fence.task_id, fence=claim.fence)
        tools = ToolSet(configuration, ledger.dossier)
        await tools.open()
        return tools

    def check(self, output: ToolOutput) -> None:
        """Nothing outside changed, nothing of it (and no path of this machine) is in the answer."""
        said = output.text + json.dumps(output.data, default=str)
        assert CANARY not in said
        assert str(self.folder) not in said
        assert "Traceback" not in output.text
        assert "\x00" not in output.text
        output.text.encode()
        assert self._seen_outside() == self.outside_before
        assert {path.name for path in self.folder.iterdir()} == {"outside", "objects", "workspace"}

    def _seen_outside(self) -> dict[str, tuple[int, bytes]]:
        return {
            path.name: (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in (self.outside, *self.outside.iterdir())
        }
