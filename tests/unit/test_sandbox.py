"""Commands stay in their sandbox: every attempt to get out is tried and looked for outside."""

import asyncio
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from agent2389.agent.files import Workspace
from agent2389.errors import ConfigurationError
from agent2389.ledger.memory import MemoryLedger
from agent2389.tools import syscall_filter
from agent2389.tools.dev import DevToolkit
from agent2389.tools.port import TaskScope, ToolOutput, ToolSettings
from agent2389.tools.reserved import read_state, write_state
from agent2389.tools.sandbox import INSIDE, Limits, Sandbox, missing_part
from tests.support.structure import ROOT
from tests.support.waiting import until

CASES = tomllib.loads((ROOT / "tests/corpus/sandbox/escapes.toml").read_text())["case"]
SECRET = "canary-5e1f"
LIMITS = {"seconds": 20, "memory_mib": 256, "disk_mib": 64, "file_mib": 8}


@functools.cache
def why_there_is_no_sandbox() -> str | None:
    """Tried once, in a loop of its own."""
    if (missing := missing_part()) is not None:
        return missing
    try:
        asyncio.run(Sandbox(Limits()).probe())
    except ConfigurationError as error:
        return str(error)
    return None


class World:
    """What lies around a workspace, and whether somebody touched it."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.workspace.mkdir(mode=0o700)
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "secret.txt").write_text(SECRET)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract_name = f"agent2389-test-{os.getpid()}"
        self.abstract.bind(f"\0{self.abstract_name}")
        self.abstract.listen()
        self.victim = subprocess.Popen(["sleep", "1000"])
        self.state = {
            "hostname": socket.gethostname(),
            "core": Path("/proc/sys/kernel/core_pattern").read_text(),
        }
        write_state(self.workspace, "todo.json", b"mine")

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        self.server.close()
        self.abstract.close()

    def check_untouched(self) -> None:
        assert [path.name for path in self.outside.iterdir()] == ["secret.txt"]
        assert (self.outside / "secret.txt").read_text() == SECRET
        assert {path.name for path in self.workspace.parent.iterdir()} == {"workspace", "outside"}
        assert not Path("/stolen").exists()
        assert not Path("/usr/stolen").exists()
        assert self.victim.poll() is None
        assert socket.gethostname() == self.state["hostname"]
        assert Path("/proc/sys/kernel/core_pattern").read_text() == self.state["core"]
        assert read_state(self.workspace, "todo.json") == b"mine"
        for server in (self.server, self.abstract):
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()

    def fill(self, text: str) -> str:
        numbers = syscall_filter.REFUSED[os.uname().machine]
        return text.format(
            outside=self.outside,
            port=self.server.getsockname()[1],
            pid=self.victim.pid,
            abstract=self.abstract_name,
            clone=syscall_filter._CLONE[os.uname().machine],
            **numbers,
        )


@pytest.fixture(scope="module")
def sandbox_works() -> None:
    if (reason := why_there_is_no_sandbox()) is not None:
        pytest.skip(f"no sandbox on this machine: {reason}")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox_works: None) -> Iterator[World]:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture(scope="module")
def toolkit(sandbox_works: None) -> DevToolkit:
    """One for all tests: opening tries the sandbox, which is the slowest part of a small command."""
    return asyncio.run(opened())


async def opened(**settings: object) -> DevToolkit:
    toolkit = DevToolkit(ToolSettings(values={**LIMITS, **settings}))
    await toolkit.open()
    return toolkit


async def run(
    toolkit: DevToolkit, workspace: Path, name: str = "run_command", **arguments: object
) -> ToolOutput:
    tool = next(tool for tool in toolkit.tools() if tool.name == name)
    scope = TaskScope(job_id="j", task_id="t", tenant="default", workspace=workspace)
    return await asyncio.wait_for(tool.call(arguments, scope), tool.timeout)


def processes_of(workspace: Path) -> list[str]:
    """Command lines of processes that see this workspace at its place in a sandbox, or put it there."""
    found = []
    mounted = f"{workspace.parent.name}/{workspace.name} {INSIDE} "
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if mounted in (folder / "mountinfo").read_text() or f"--bind {workspace} " in line:
                found.append(line)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_nothing_gets_out_of_the_sandbox(
    case: dict[str, object], world: World, toolkit: DevToolkit
) -> None:
    command = world.fill(str(case["command"]))
    more: dict[str, Any] = {"seconds": case["seconds"]} if "seconds" in case else {}
    output = await run(toolkit, world.workspace, command=command, **more)
    world.check_untouched()
    assert re.search(str(case["says"]), output.text), output.text[-2000:]
    assert SECRET not in output.text
    assert "\x00" not in output.text
    json.dumps(output.text).encode()
    assert processes_of(world.workspace) == []
    assert not (world.workspace / "outlived").exists()
    # Whoever takes the workspace afterwards can: store it, read it, use it again, remove it.
    ledger = MemoryLedger()
    workspace = Workspace(world.workspace.parent, ledger, "default", "t")
    workspace.path = world.workspace
    manifest = await workspace.collect()
    msgspec.json.encode(manifest)
    for file in manifest.values():
        assert SECRET.encode() not in (await ledger.get_blob(file.sha256)).content
    again = await run(toolkit, world.workspace, command="echo works > again; cat again")
    assert "works" in again.text
    shutil.rmtree(world.workspace)


def test_there_are_enough_ways_out_tried() -> None:
    assert len(CASES) >= 50
    assert len({case["name"] for case in CASES}) == len(CASES)


async def test_commands_work_on_the_workspace(world: World, toolkit: DevToolkit) -> None:
    (world.workspace / "in.txt").write_text("3\n1\n2\n")
    output = await run(toolkit, world.workspace, command="sort in.txt > out.txt && wc -l < out.txt")
    assert output.text == "exit code 0\n3\n"
    assert not output.failed
    assert output.changed_files
    assert (world.workspace / "out.txt").read_text() == "1\n2\n3\n"
    failed = await run(toolkit, world.workspace, command="exit 7")
    assert failed.failed
    assert failed.data == {"exit_code": 7, "stopped": None}


async def test_long_output_keeps_its_ends(world: World, toolkit: DevToolkit) -> None:
    output = await run(toolkit, world.workspace, command="echo first; seq 100000; echo last")
    assert output.text.startswith("exit code 0\nfirst\n")
    assert output.text.endswith("last\n")
    assert "bytes left out" in output.text
    assert len(output.text) < 20_000


async def test_only_named_commands_run_and_no_shell(world: World) -> None:
    toolkit = await opened(allowed_commands=["ls", "python"])
    assert not (await run(toolkit, world.workspace, command="ls -a")).failed
    for command in ("cat x", "ls; cat x", "'", "", "/bin/ls", "ls\0"):
        output = await run(toolkit, world.workspace, command=command)
        assert output.failed, command
    assert "cat" not in (await run(toolkit, world.workspace, command="ls $(cat x)")).text.split("\n")[0]
    assert (await run(toolkit, world.workspace, "run_tests")).text.startswith("refused: pytest")


@pytest.mark.parametrize(
    ("name", "text", "works"),
    [
        ("good.py", "print(1)\n", True),
        ("bad.py", "print(\n", False),
        ("good.sh", "echo $1\n", True),
        ("bad.sh", "if\n", False),
        ("-rf.sh", "echo\n", True),
        ("a;id.sh", "echo\n", True),
    ],
)
async def test_sources_are_checked(
    world: World, toolkit: DevToolkit, name: str, text: str, works: bool
) -> None:
    (world.workspace / name).write_text(text)
    output = await run(toolkit, world.workspace, "compile_code", path=name)
    assert output.failed is not works, output.text
    assert "uid=" not in output.text


@pytest.mark.parametrize("path", ["../x.py", "/etc/passwd", "x.unknown", "", ".agent2389/x.py"])
async def test_sources_outside_are_refused(world: World, toolkit: DevToolkit, path: str) -> None:
    output = await run(toolkit, world.workspace, "compile_code", path=path)
    assert output.text.startswith("refused: ")


async def test_tests_are_run(world: World, toolkit: DevToolkit) -> None:
    folder = world.workspace / "project"
    folder.mkdir()
    test = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(1, {})\n"
    (folder / "test_a.py").write_text(test.format(1))
    assert not (await run(toolkit, world.workspace, "run_tests", path="project")).failed
    (folder / "test_a.py").write_text(test.format(2))
    output = await run(toolkit, world.workspace, "run_tests", path="project")
    assert output.failed
    assert "1 != 2" in output.text


@pytest.mark.parametrize(
    "command",
    [
        "sleep 1000",
        "trap '' TERM INT HUP; (setsid sleep 1000 >/dev/null 2>&1 &); while :; do sleep 1; done",
        "mkdir closed; touch closed/file; chmod 0 closed; mkfifo pipe; sleep 1000",
    ],
)
async def test_a_cancelled_call_leaves_nothing_running_and_a_tidy_workspace(
    world: World, toolkit: DevToolkit, command: str
) -> None:
    begun = world.workspace / "begun"
    call = asyncio.create_task(run(toolkit, world.workspace, command=f"touch begun; {command}"))
    await until(begun.exists)
    assert processes_of(world.workspace)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert processes_of(world.workspace) == []
    assert not (world.workspace / "pipe").exists()
    closed = world.workspace / "closed"
    assert not closed.exists() or closed.stat().st_mode & 0o700 == 0o700


async def test_a_call_cancelled_twice_still_clears_up(world: World, toolkit: DevToolkit) -> None:
    call = asyncio.create_task(run(toolkit, world.workspace, command="touch begun; sleep 1000"))
    await until((world.workspace / "begun").exists)
    for _ in range(2):
        call.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: not processes_of(world.workspace))
    assert not any(task.get_name() == "sandbox" for task in asyncio.all_tasks() if task.done())


async def test_calls_at_the_same_time_do_not_meet(world: World, toolkit: DevToolkit) -> None:
    folders = [world.workspace / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir(mode=0o700)
    outputs = await asyncio.gather(
        *(run(toolkit, folder, command="touch mine; ls; ls ..") for folder in folders)
    )
    assert {output.text for output in outputs} == {outputs[0].text}
    assert "mine" in outputs[0].text
    assert "two" not in outputs[0].text


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"sandbox": "docker"}, "sandbox"),
        ({"seconds": 0}, "seconds"),
        ({"memory_mib": -1}, "memory_mib"),
        ({"readable": ["relative"]}, "readable"),
        ({"readable": ["/"]}, "readable"),
        ({"readable": ["/does/not/exist"]}, "readable"),
        ({"netwrok": True}, "netwrok"),
        ({"network": "yes"}, "network"),
    ],
)
def test_mistakes_in_the_settings_are_told(values: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        DevToolkit(ToolSettings(values=values)).check()


async def test_more_folders_may_be_shown_read_only(world: World) -> None:
    toolkit = await opened(readable=[str(world.outside)])
    output = await run(
        toolkit, world.workspace, command=f"cat {world.outside}/secret.txt; touch {world.outside}/stolen"
    )
    assert SECRET in output.text
    assert "Read-only file system" in output.text
    world.check_untouched()


async def test_a_machine_that_allows_no_sandbox_is_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("agent2389.tools.sandbox.SEARCH_PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ConfigurationError, match="No permissions to create new namespace"):
        await Sandbox(Limits()).probe()


def test_a_machine_without_bubblewrap_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent2389.tools.sandbox.SEARCH_PATH", "/nowhere")
    assert missing_part() == "bwrap is not installed; on Debian: apt-get install bubblewrap"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try it as somebody else")
async def test_an_agent_that_is_not_root_has_the_same_sandbox(world: World) -> None:
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom agent2389.tools.sandbox import *\n"
        "async def main():\n"
        "    sandbox = Sandbox(Limits(seconds=10), reserved='.agent2389')\n"
        "    await sandbox.probe()\n"
        "    for command in sys.argv[2:]:\n"
        "        print(await sandbox.run(('sh', '-c', command), Path(sys.argv[1])))\n"
        "asyncio.run(main())\n"
    )
    folder = Path("/var/tmp") / f"agent2389-test-{os.getpid()}"
    workspace = folder / "workspace"
    workspace.mkdir(parents=True)
    shutil.copytree(ROOT / "agent2389", folder / "agent2389")
    site = folder / "site-packages"
    for package in (msgspec, structlog):
        shutil.copytree(Path(str(package.__file__)).parent, site / package.__name__)
    for path in (folder, workspace):
        os.chown(path, 65534, 65534)
    try:
        done = subprocess.run(
            [shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3", "-c", script, str(workspace),
             "echo hi > x; cat x; id -u; touch /usr/x", "unshare -Ur true", "bomb() { bomb | bomb & }; bomb; sleep 1"],
            env={"PYTHONPATH": f"{folder}:{site}", "PATH": "/usr/bin:/bin"},
            cwd=folder, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    if "may not make a sandbox here" in done.stderr:
        pytest.skip("this kernel lets no ordinary user make a sandbox")
    assert done.returncode == 0, done.stderr
    assert "hi\\n65534\\ntouch: cannot touch '/usr/x': Read-only file system" in done.stdout
    assert "unshare failed: Operation not permitted" in done.stdout
    assert "Cannot fork" in done.stdout
