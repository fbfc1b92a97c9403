"""Lines on standard error: one form, no secrets, whoever wrote them."""

import json
import subprocess
import sys

PROGRAM = """
import logging, sys
from agent2389.telemetry.logs import configure_logging, register_secret
configure_logging("info", "json")
configure_logging("info", "json")
register_secret("hush-hush-hush")
logging.getLogger("some.library").warning("100%% of %s failed with hush-hush-hush", "calls")
logging.getLogger("some.library").info("too quiet to be heard")
try:
    raise ValueError("hush-hush-hush")
except ValueError:
    logging.getLogger("some.library").exception("with a reason")
raise RuntimeError("password=letmein1")
"""


def test_lines_of_libraries_and_last_words_are_json_without_secrets() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert [line["level"] for line in lines] == ["warning", "error", "critical"]
    assert lines[0]["event"] == "100% of calls failed with ********"
    assert lines[0]["logger"] == "some.library"
    assert "ValueError: ********" in lines[1]["exception"]
    assert lines[2]["event"] == "the process ends unexpectedly"
    assert "password=********" in lines[2]["exception"]
