"""The page about containment: its settings load, its answers are readable, its figures are the corpus's."""

import json
import re
import tomllib

import msgspec

from agent2389.config.model import AgentConfiguration, AgentSection
from agent2389.ops.requests import DECISIONS, DecideApproval
from agent2389.tools.configured import mistakes
from agent2389.tools.registry import is_known_tool
from agent2389.wire.mesh import read_approval_answer
from tests.support.structure import ROOT

PAGE = (ROOT / "docs" / "containment.md").read_text()
CORPUS = ROOT / "tests" / "corpus" / "injection"
NUMBERS = {"ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14}


def test_the_settings_shown_are_right() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    shown = tomllib.loads(block)
    configuration = AgentConfiguration(agent=AgentSection(id="a"), toolkits=("workspace", "http"), **shown)
    assert mistakes(configuration) == []
    assert configuration.approvals.unsafe == AgentConfiguration(agent=AgentSection(id="a")).approvals.unsafe
    named = (*configuration.approvals.always, *configuration.approvals.never)
    assert len(named) == 2
    assert all(is_known_tool(name) for name in named)


def test_the_answers_shown_are_read() -> None:
    over_http, by_mqtt = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    decision = msgspec.json.decode(over_http, type=DecideApproval)
    assert DECISIONS[decision.decision] == "approved"
    assert decision.arguments_sha256
    answer = read_approval_answer(by_mqtt.replace("SHA256", "0" * 64).encode())
    assert answer is not None
    assert answer.decision == "approved"


def test_the_commands_shown_exist() -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    verbs = re.findall(r"^agent2389 (approval \w+)", block, re.MULTILINE)
    commands = (ROOT / "docs" / "commands.md").read_text()
    assert len(verbs) == 4
    assert all(f"## `agent2389 {verb}`" in commands for verb in verbs)


def test_its_figures_are_those_of_the_corpus() -> None:
    found = re.search(r"holds (\d+) documents of (\w+) families", PAGE)
    assert found is not None
    files = [json.loads(path.read_text()) for path in CORPUS.glob("*.json")]
    assert (int(found[1]), NUMBERS[found[2]]) == (sum(map(len, files)), len(files))
