"""The house stands as it was drawn."""

import ast
import os
import re
import resource
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support.structure import PACKAGE, ROOT

MODULES = sorted(PACKAGE.rglob("*.py"))
DATA_FOLDERS = ("agents", "broker", "router", "deploy", "fly", "k8s")


def test_imports_only_go_down() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout
    assert "Contracts: 3 kept, 0 broken" in found.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_short_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "a module opens with one sentence"


def test_data_folders_hold_no_python() -> None:
    found = [path for folder in DATA_FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert found == []


def test_only_one_module_writes_topics() -> None:
    pattern = re.compile(r"[\"'](?:/control/|/conversations/|agent2389/v1)")
    found = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if path.name != "topics.py"
        and pattern.search(re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL))
    ]
    assert found == []


def test_python_holds_no_sql() -> None:
    pattern = re.compile(r"[\"'](?:SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH) ")
    found = [str(path.relative_to(PACKAGE)) for path in MODULES if pattern.search(path.read_text())]
    assert found == []


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    uv = ROOT / ".uv" / "bin" / "uv"
    command = [str(uv) if uv.exists() else "uv", "build", "--wheel", "--quiet", "--out-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"})
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"agent2389"}
    for needed in (
        "agent2389/py.typed",
        "agent2389/ledger/sql/queries.sql",
        "agent2389/ledger/sql/migrations/0001_roles_and_tables.sql",
        "agent2389/router/defaults/prompt.md",
        "agent2389/config/shipped/researcher.toml",
        "agent2389/config/templates/basic.toml",
    ):
        assert needed in names


def test_help_is_fast() -> None:
    """Processor time: on an idle machine that is what a person waits, on a busy one nobody's fault."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "agent2389", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)

    assert min(once() for _ in range(5)) < 0.15


def test_no_sdk_is_imported_before_it_is_used() -> None:
    script = (
        "import sys, agent2389.wiring.agent, agent2389.wiring.ops\n"
        "sdks = {'openai', 'anthropic', 'google.genai', 'neo4j', 'pymongo', 'pypdf'}\n"
        "print(sorted(sdks & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_extras_have_their_names() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) == {"llm", "embedded", "docs", "graph", "s3", "mongo", "mcp", "pymupdf", "all"}


def test_packaged_agents_are_those_of_the_folder() -> None:
    packaged = {path.name: path.read_text() for path in (PACKAGE / "config" / "shipped").glob("*.toml")}
    assert packaged == {path.name: path.read_text() for path in (ROOT / "agents").glob("*.toml")}
