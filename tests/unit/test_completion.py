"""Completions as a shell asks for them."""

import subprocess

import pytest

from tests.support.mesh import clean_environ, command


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_program(shell: str) -> None:
    done = subprocess.run(command("completion", shell), capture_output=True, text=True, check=True)
    assert "agent2389" in done.stdout
    assert "_AGENT2389_COMPLETE" in done.stdout


def test_a_shell_gets_the_verbs_that_fit() -> None:
    asked = {"_AGENT2389_COMPLETE": "complete_bash", "COMP_WORDS": "agent2389 job c", "COMP_CWORD": "2"}
    done = subprocess.run(
        command(), env={**clean_environ(), **asked}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["cancel", "clone"]
