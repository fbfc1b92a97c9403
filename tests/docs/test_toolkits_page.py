"""The page about toolkits: its settings load, and it names every member of one."""

import re
import tomllib

from agent2389.config.model import AgentConfiguration, AgentSection
from agent2389.tools.configured import mistakes
from agent2389.tools.port import Toolkit
from agent2389.tools.registry import is_known_toolkit
from tests.support.structure import ROOT

PAGE = (ROOT / "docs" / "toolkits.md").read_text()


def test_the_settings_shown_are_right() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    shown = tomllib.loads(block)
    assert all(is_known_toolkit(name) for name in shown["toolkits"])
    configuration = AgentConfiguration(
        agent=AgentSection(id="a"),
        toolkits=tuple(shown["toolkits"]),
        toolkit_config=shown["toolkit_config"],
    )
    assert mistakes(configuration) == []


def test_every_member_has_a_line() -> None:
    members = {name for name in vars(Toolkit) if not name.startswith("_")}
    assert members
    for name in members:
        assert f"| `{name}" in PAGE
