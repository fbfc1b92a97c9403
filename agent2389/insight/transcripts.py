"""What was said on a job: the conversations of all its hops with their calls, for people and machines."""

import json
from collections.abc import AsyncIterator, Sequence

from agent2389.ledger.journal import TranscriptEntry
from agent2389.ledger.port import Ledger

PAGE = 200


async def entries(ledger: Ledger, job_id: str) -> AsyncIterator[TranscriptEntry]:
    """Every entry in order. Raises ``NotFound``."""
    await ledger.job(job_id)
    skip = 0
    while page := await ledger.transcript(job_id, skip, PAGE):
        for entry in page:
            yield entry
        skip += len(page)


def as_markdown(job_id: str, found: Sequence[TranscriptEntry]) -> str:
    """A transcript to read. Fences grow with what they hold, so that no text can leave its own."""
    lines = [f"# Job {job_id}"]
    hop: tuple[str, int] | None = None
    for entry in found:
        if hop != (entry.task_id, entry.generation):
            hop = (entry.task_id, entry.generation)
            again = f", try {entry.generation + 1}" if entry.generation else ""
            lines.append(f"\n## Hop {entry.hop}: {entry.capability}{again}")
        lines += _told(entry)
    return "\n".join(lines) + "\n"


def _told(entry: TranscriptEntry) -> list[str]:
    turn = json.loads(entry.body) if entry.body else {}
    effect = entry.effect
    title = str(turn.get("role", "call"))
    if effect is not None:
        used = effect.used
        cost = "cost unknown" if used.cost_usd is None else f"{used.cost_usd:.6f} USD"
        spent = f"{used.input_tokens}+{used.output_tokens} tokens, {cost}" if effect.kind == "model" else ""
        told = (effect.name, spent, f"{used.seconds:.2f} s", effect.state if effect.state != "done" else "")
        title += f" ({', '.join(part for part in told if part)})"
    lines = [f"\n### {title}"]
    if text := str(turn.get("text") or ""):
        fence = "`" * max(3, _longest_run(text) + 1)
        lines += ["", f"{fence}text", text, fence]
    lines += [f"- calls `{call['name']}` with `{call['arguments']}`" for call in turn.get("tool_calls", ())]
    return lines


def _longest_run(text: str) -> int:
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest
