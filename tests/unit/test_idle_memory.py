"""What an idle agent does not load: packages that only others need."""

import subprocess
import sys

from agent2389.telemetry.imports import without

LOADED = """
import sys
import agent2389.cli.main, agent2389.cli.mesh, agent2389.wiring.agent
print(*(name for name in {names!r} if name in sys.modules))
"""
SOMEBODY_ELSES = (
    "openai",
    "anthropic",
    "google.genai",
    "httpx2",
    "jsonpath",
    "dns",
    "mcp",
    "obstore",
    "pypdf",
    "pypdfium2",
    "pymongo",
    "neo4j",
    "kubernetes",
)


def test_an_idle_agent_loads_no_package_of_a_provider_or_a_toolkit() -> None:
    code = LOADED.format(names=SOMEBODY_ELSES)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_was_hidden_can_be_imported_afterwards() -> None:
    with without("module_of_nobody", "sys"):
        assert sys.modules.get("module_of_nobody", sys) is None
        assert sys.modules["sys"] is sys
    assert "module_of_nobody" not in sys.modules
