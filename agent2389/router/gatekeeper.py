"""The gatekeeper: an HTTP service of the operator's own that says who continues."""

import asyncio
import time
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from agent2389.config.model import Gatekeeper as Section
from agent2389.router.policy import Policy
from agent2389.router.port import Decision, Failed, Outcome, Situation, Target
from agent2389.router.text import one_line

DEFAULT_PATH: Final = "/should_agents_respond"
MAX_BODY_BYTES: Final = 64 * 1024
MAX_INSTRUCTION_CHARACTERS: Final = 4000
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0
ASKS: Final = 2
"""An answer that cannot be used is asked for once more."""


class Answer(msgspec.Struct, frozen=True):
    """What the service says; unknown fields are ignored."""

    workflow_complete: bool
    next_agent: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    next_instruction: str | None = None
    reasoning: str | None = None


class _Away(Exception):
    """The service did not answer usably; the message says how."""


class Gatekeeper:
    """Asks over HTTP. ``next_agent`` is an agent id or a capability of the candidates, or nothing."""

    def __init__(self, section: Section, policy: Policy, *, proxy: str | None = None) -> None:
        address = urlsplit(section.url)
        bare = address.path in ("", "/") and not address.query
        self._url = address._replace(path=DEFAULT_PATH).geturl() if bare else section.url
        self._timeout = section.timeout_ms / 1000
        self._retries = section.retry_attempts
        self._use_instructions = policy.gatekeeper_instructions
        self._proxy = proxy

    async def choose(self, situation: Situation) -> Decision | Failed | None:
        """The service's choice; network errors, timeouts and 5xx are tried again, then it ``Failed``."""
        started = time.monotonic()
        body = msgspec.json.encode(question(situation))
        problem = ""
        for _ in range(ASKS):
            try:
                content = await self._post(body)
            except _Away as error:
                problem = f"the gatekeeper failed: {error}"
                break
            decision, problem = self._read(content, situation)
            if decision is not None:
                return msgspec.structs.replace(decision, model_seconds=_since(started))
        return Failed(problem=one_line(problem), model_seconds=_since(started))

    async def _post(self, body: bytes) -> bytes:
        import httpx2  # noqa: PLC0415 - agents without a gatekeeper do not pay for it

        failure = "no try was made"
        async with httpx2.AsyncClient(proxy=self._proxy, timeout=self._timeout, trust_env=False) as http:
            for attempt in range(self._retries + 1):
                if attempt:
                    await asyncio.sleep(
                        min(FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
                    )
                try:
                    # One limit for the whole try: a body that trickles must not outlast it.
                    async with asyncio.timeout(self._timeout):
                        status, content = await self._once(http, body)
                except (httpx2.HTTPError, TimeoutError) as error:
                    failure = type(error).__name__
                    continue
                if status < 400:
                    return content
                failure = f"HTTP {status}"
                if status < 500:
                    break
        raise _Away(failure)

    async def _once(self, http: Any, body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        content = bytearray()
        async with http.stream("POST", self._url, content=body, headers=headers) as response:
            if 300 <= response.status_code < 400:
                return 400, b""
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > MAX_BODY_BYTES:
                    raise _Away(f"its answer is larger than {MAX_BODY_BYTES} bytes")
        return response.status_code, bytes(content)

    def _read(self, content: bytes, situation: Situation) -> tuple[Decision | None, str]:
        try:
            answer = msgspec.json.decode(content, type=Answer)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return None, f"the gatekeeper's answer cannot be used: {error}"
        reason = one_line(answer.reasoning or "")
        if answer.workflow_complete:
            reason = reason or "the gatekeeper says that the job is complete"
            return Decision(outcome=Outcome.DONE, strategy="gatekeeper", reason=reason), ""
        target = _target(answer.next_agent, situation)
        if target is None:
            return None, f"the gatekeeper named {answer.next_agent!r}, which is not a candidate"
        if self._use_instructions and answer.next_instruction:
            target = msgspec.structs.replace(
                target, instruction=_storable(answer.next_instruction)
            )
        reason = reason or f"the gatekeeper chose {target.name}"
        return Decision(
            outcome=Outcome.HAND_OFF, strategy="gatekeeper", reason=reason, targets=(target,)
        ), ""


def question(situation: Situation) -> dict[str, Any]:
    """The document that is posted; ``load`` is the busy share of the agent's pool, 0 to 1."""
    agents: dict[str, dict[str, Any]] = {}
    for candidate in situation.candidates:
        load = 1 - candidate.free_slots / candidate.slots if candidate.slots else 0.0
        for agent in candidate.agents:
            entry = agents.setdefault(agent, {"agent_id": agent, "capabilities": [], "load": 0.0})
            entry["capabilities"].append(candidate.capability)
            entry["load"] = round(min(max(load, entry["load"]), 1.0), 3)
    return {
        "original_query": situation.instruction,
        "workflow_history": [
            {
                "agent_id": step.agent_id,
                "capability": step.capability,
                "action": step.summary,
                "step_number": step.hop,
            }
            for step in situation.steps
        ],
        "current_output": situation.answer,
        "available_agents": list(agents.values()),
        "iteration_count": situation.hop,
    }


def _target(name: str | None, situation: Situation) -> Target | None:
    for candidate in situation.candidates:
        if name in candidate.agents:
            return Target(agent=name)
    named = (name or "").lower()
    found = any(candidate.capability == named for candidate in situation.candidates)
    return Target(capability=named) if found else None


def _storable(instruction: str) -> str:
    return instruction[:MAX_INSTRUCTION_CHARACTERS].replace("\x00", "")


def _since(started: float) -> float:
    return round(time.monotonic() - started, 6)
