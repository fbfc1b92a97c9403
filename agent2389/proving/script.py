"""The work of a fault run: three hops whose outcome anybody can compute from the job's id alone."""

import hashlib
import json
from typing import Any

import msgspec

from agent2389.proving.endpoint import INPUT_USD, MODEL, OUTPUT_USD

STEPS = ("step-a", "step-b", "step-c")
POISON = "poison"
MODEL_RETRIES = 12
BUDGET_USD = 0.05
"""Of one job, where the model costs something."""
ARROW = " > "


_REHEARSAL = """provider = "rehearsal"
model = "rehearsal\""""
_OVER_HTTP = """provider = "openai"
model = "{model}"
base_url = "{url}"
stream = true
timeout = 240
first_token_timeout = 1
max_retries = {retries}
price_per_million_input_usd = {input_usd}
price_per_million_output_usd = {output_usd}"""


def agent_file(
    agent_id: str, capability: str, *, slots: int, lease: float, work: float, endpoint: str | None = None
) -> str:
    """The TOML of an agent that writes one file, calls one tool and answers what both say.

    ``endpoint`` is the URL of a model behind HTTP that plays the same part.
    """
    model = _REHEARSAL
    if endpoint is not None:
        model = _OVER_HTTP.format(
            model=MODEL, url=endpoint, retries=MODEL_RETRIES, input_usd=INPUT_USD, output_usd=OUTPUT_USD
        )
    return f"""# Written by agent2389 chaos.
toolkits = ["workspace", "echo"]

[agent]
id = "{agent_id}"
description = "Does the step {capability} of a fault run."
capabilities = ["{capability}"]
slots = {slots}

[worker]
lease_seconds = {lease}

[llm]
{model}
system_prompt = '''
rehearse wait {work}
rehearse call write_file {{"path": "{capability}.txt", "content": "{{input}}"}}
rehearse call echo {{"text": "{{input}}"}}
rehearse answer {{output}}{ARROW}{capability}
'''
"""


def submission(job_id: str) -> dict[str, Any]:
    """A job over all steps."""
    return {
        "job_id": job_id,
        "capability": STEPS[0],
        "instruction": "Pass it on.",
        "input": job_id,
        "next": list(STEPS[1:]),
        "routing": {"strategy": "fixed"},
        "budget": {"cost_usd": BUDGET_USD},
    }


def poison(job_id: str) -> dict[str, Any]:
    """A job for the agents that are killed while they work on it."""
    return {"job_id": job_id, "capability": POISON, "instruction": "Kill.", "routing": {"strategy": "fixed"}}


class _File(msgspec.Struct, frozen=True):
    name: str
    sha256: str


class _Result(msgspec.Struct, frozen=True):
    text: str
    files: tuple[_File, ...] = ()


class _Hop(msgspec.Struct, frozen=True):
    capability: str


class _Spent(msgspec.Struct, frozen=True):
    cost_usd: float | None = None


class Final(msgspec.Struct, frozen=True):
    """The terminal payload as far as it is looked at."""

    job_id: str
    state: str
    route: tuple[_Hop, ...] = ()
    result: _Result | None = None
    error: dict[str, Any] | None = None
    usage: _Spent = _Spent()


def mistakes(job_id: str, final: Final) -> list[str]:
    """What is wrong with the result of a completed job: text, hops, and each file by its hash."""
    expected = ARROW.join((job_id, *STEPS))
    found = []
    if final.job_id != job_id:
        found.append(f"names job {final.job_id}")
    if final.result is None or final.result.text != expected:
        found.append(f"answers {json.dumps(final.result.text if final.result else None)}")
    if tuple(hop.capability for hop in final.route) != STEPS:
        found.append(f"went {[hop.capability for hop in final.route]}")
    files = {file.name: file.sha256 for file in final.result.files} if final.result else {}
    if files != expected_files(job_id):
        found.append(f"holds the files {sorted(files)} with other content or not all")
    return found


def expected_files(job_id: str) -> dict[str, str]:
    """Name and SHA-256 of every file that the three steps write."""
    return {
        f"{step}.txt": hashlib.sha256(ARROW.join((job_id, *STEPS[:place])).encode()).hexdigest()
        for place, step in enumerate(STEPS)
    }
