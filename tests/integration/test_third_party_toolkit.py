"""A toolkit of another package: installed, found, configured, called, and no harm when it is broken."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mesh import clean_environ
from tests.support.structure import ROOT

EXAMPLE = ROOT / "examples" / "toolkit"
AGENT = """
toolkits = ["echo", "measures", "broken"]
[agent]
id = "measurer"
[llm]
model = "rehearsal"
provider = "rehearsal"
[toolkit_config.measures]
digits = {digits}
"""
CALL = """
import asyncio, pathlib, sys
from agent2389.config.load import load_agent
from agent2389.tools.port import TaskScope
from agent2389.tools.registry import ToolSet

async def main():
    tools = ToolSet(load_agent(pathlib.Path(sys.argv[1])).configuration)
    await tools.open()
    scope = TaskScope(job_id="j", task_id="t", tenant="default", workspace=pathlib.Path("."))
    print((await tools.call("convert_length", '{"value": 2, "from": "mi", "to": "km"}', scope)).text)
    print((await tools.call("convert_length", '{"value": 2, "from": "mile", "to": "km"}', scope)).text)
    await tools.close()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example installed by its own build, and a package that breaks when loaded."""
    folder = tmp_path_factory.mktemp("packages")
    uv = ROOT / ".uv" / "bin" / "uv"
    command = [str(uv) if uv.exists() else "uv", "pip", "install", "--quiet", "--no-deps"]
    command += ["--python", sys.executable, "--target", str(folder), str(EXAMPLE)]
    subprocess.run(command, check=True, env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"})
    broken = folder / "broken_toolkit-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-toolkit\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[agent2389.toolkits]\nbroken = broken_toolkit:Toolkit\n")
    (folder / "broken_toolkit.py").write_text("raise OSError('/home/somebody/secret')\n")
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={**clean_environ(), "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def agent_file(tmp_path: Path, digits: str) -> str:
    path = tmp_path / "measurer.toml"
    path.write_text(AGENT.format(digits=digits))
    return str(path)


def test_an_installed_toolkit_is_listed_and_a_broken_one_is_skipped(folder: Path, tmp_path: Path) -> None:
    done = run(folder, "-m", "agent2389", "tools", "list", "--json", agent_file(tmp_path, "2"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["data"]
    assert ("convert_length", "measures", "pure") in {
        (row["name"], row["toolkit"], row["effect"]) for row in found["tools"]
    }
    assert found["skipped"] == {"broken": "toolkit broken of broken-toolkit 1.0 is broken: OSError"}
    assert "somebody" not in done.stdout + done.stderr


def test_its_tool_is_called_with_its_settings_and_its_schema(folder: Path, tmp_path: Path) -> None:
    done = run(folder, "-c", CALL, agent_file(tmp_path, "2"))
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[-2:]
    assert first == "3.22 km"
    assert "from: " in second


def test_validate_tells_mistakes_in_its_settings(folder: Path, tmp_path: Path) -> None:
    done = run(folder, "-m", "agent2389", "validate", agent_file(tmp_path, '"many"'))
    assert done.returncode == 3
    assert "toolkit_config.measures" in done.stderr + done.stdout
    assert "toolkit broken of broken-toolkit 1.0 is broken" in done.stderr + done.stdout


def test_without_the_package_the_name_is_unknown(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "agent2389", "validate", agent_file(tmp_path, "2"))
    assert "no toolkit 'measures'" in done.stderr + done.stdout
