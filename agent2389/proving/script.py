"""The work of a fault run: three hops whose outcome anybody can compute from the job's id alone."""

import hashlib
import json
from typing import Any

import msgspec

STEPS = ("step-a", "step-b", "step-c")
POISON = "poison"
ARROW = " > "


def agent_file(agent_id: str, capability: str, *, slots: int, lease: float, work: float) -> str:
    """The TOML of an agent that writes one file, calls one tool and answers what both say."""
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
provider = "rehearsal"
model = "rehearsal"
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


class Final(msgspec.Struct, frozen=True):
    """The terminal payload as far as it is looked at."""

    job_id: str
    state: str
    route: tuple[_Hop, ...] = ()
    result: _Result | None = None
    error: dict[str, Any] | None = None


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
