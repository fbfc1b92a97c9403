"""What a model call costs on top of the bare SDK: ours and a widely used framework, on an instant local endpoint.

Run: .venv/bin/python bench/model_call.py [CALLS]; with 0 only start and memory. Prints markdown tables with machine and date. The framework
is installed for this run only, by `uv run --with`; the SDKs are the versions of this environment.
"""

# ruff: noqa: PLC0415 - a process imports its own contestant only, because imports are measured

import asyncio
import datetime as dt
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

FRAMEWORK = "pydantic-ai-slim"
PROVIDERS = ("openai", "anthropic", "google")
PACKAGES = {"openai": "openai", "anthropic": "anthropic", "google": "google-genai"}
ROUNDS = 5
AT_ONCE = 50
AIM = 1.3
KEY = "sk-bench"
Call = Callable[[], Awaitable[Any]]

# the question: an agent in the middle of its work -------------------------------------

SYSTEM = "You answer questions about lakes from the notes you are given. " * 10
QUESTION = "How deep is the lake at its deepest place, and who measured it? " * 5
TOOLS = tuple(
    (
        f"tool_{number}",
        "Reads one file of the workspace and returns its text.",
        {
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "A path inside the workspace."},
                "from_line": {"type": "integer", "minimum": 1},
            },
            "required": ["path"],
            "additionalProperties": False,
        },
    )
    for number in range(8)
)
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-6", "google": "gemini-2.5-flash"}


def base_url(provider: str, url: str) -> str:
    return f"{url}/v1" if provider == "openai" else url


# the contestants ------------------------------------------------------------------------


def ours(provider: str, url: str) -> Call:
    """What an agent calls: the adapter with its retries and its breaker."""
    from pydantic import SecretStr

    from agent2389.config.model import LlmSection
    from agent2389.llm.messages import Request, Role, ToolSpec, Turn
    from agent2389.llm.open import open_model

    section = LlmSection(
        provider=provider, model=MODELS[provider], base_url=base_url(provider, url), api_key=SecretStr(KEY)
    )
    model = open_model(section)
    turns = (Turn(role=Role.SYSTEM, text=SYSTEM), Turn(role=Role.USER, text=QUESTION))
    tools = tuple(ToolSpec(*tool) for tool in TOOLS)

    async def call() -> int:
        reply = await model.answer(Request(turns=turns, tools=tools, max_tokens=1000))
        assert reply.text
        assert reply.cost_usd
        return reply.usage.input

    return call


def bare(provider: str, url: str) -> Call:
    """The official SDK as its documentation shows it, with its own HTTP client."""
    return {"openai": bare_openai, "anthropic": bare_anthropic, "google": bare_google}[provider](
        base_url(provider, url), MODELS[provider]
    )


def bare_openai(url: str, model: str) -> Call:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key=KEY, base_url=url)

    async def call() -> int:
        completion = await client.chat.completions.create(
            model=model,
            messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}],
            tools=[
                {"type": "function", "function": {"name": name, "description": told, "parameters": schema}}
                for name, told, schema in TOOLS
            ],
            max_tokens=1000,
        )
        assert completion.choices[0].message.content
        return completion.usage.prompt_tokens

    return call


def bare_anthropic(url: str, model: str) -> Call:
    from anthropic import AsyncAnthropic

    client = AsyncAnthropic(api_key=KEY, base_url=url)

    async def call() -> int:
        message = await client.messages.create(
            model=model,
            system=SYSTEM,
            messages=[{"role": "user", "content": QUESTION}],
            tools=[
                {"name": name, "description": told, "input_schema": schema} for name, told, schema in TOOLS
            ],
            max_tokens=1000,
        )
        assert message.content[0].text
        return message.usage.input_tokens

    return call


def bare_google(url: str, model: str) -> Call:
    from google import genai
    from google.genai import types

    client = genai.Client(api_key=KEY, vertexai=False, http_options=types.HttpOptions(base_url=url))

    async def call() -> int:
        answer = await client.aio.models.generate_content(
            model=model,
            contents=QUESTION,
            config=types.GenerateContentConfig(
                system_instruction=SYSTEM,
                max_output_tokens=1000,
                tools=[
                    types.Tool(
                        function_declarations=[
                            types.FunctionDeclaration(
                                name=name, description=told, parameters_json_schema=schema
                            )
                            for name, told, schema in TOOLS
                        ]
                    )
                ],
            ),
        )
        assert answer.text
        return answer.usage_metadata.prompt_token_count

    return call


def framework(provider: str, url: str) -> Call:
    """The framework's agent with the same tools, which the model does not call."""
    from pydantic_ai import Agent, Tool

    def unused(**_: Any) -> str:
        raise AssertionError("the endpoint calls no tool")

    tools = [Tool.from_schema(unused, name, told, schema) for name, told, schema in TOOLS]
    agent = Agent(framework_model(provider, url), system_prompt=SYSTEM, tools=tools)

    async def call() -> int:
        result = await agent.run(QUESTION, model_settings={"max_tokens": 1000})
        assert result.output
        return 0

    return call


def framework_model(provider: str, url: str) -> Any:
    address = base_url(provider, url)
    match provider:
        case "openai":
            from pydantic_ai.models.openai import OpenAIChatModel
            from pydantic_ai.providers.openai import OpenAIProvider

            return OpenAIChatModel(MODELS[provider], provider=OpenAIProvider(base_url=address, api_key=KEY))
        case "anthropic":
            from pydantic_ai.models.anthropic import AnthropicModel
            from pydantic_ai.providers.anthropic import AnthropicProvider

            return AnthropicModel(MODELS[provider], provider=AnthropicProvider(base_url=address, api_key=KEY))
        case _:
            from pydantic_ai.models.google import GoogleModel
            from pydantic_ai.providers.google import GoogleProvider

            return GoogleModel(MODELS[provider], provider=GoogleProvider(base_url=address, api_key=KEY))


CONTESTANTS: dict[str, Callable[[str, str], Call]] = {"ours": ours, "bare SDK": bare, FRAMEWORK: framework}

# measuring ------------------------------------------------------------------------------


async def sequential(call: Call, calls: int) -> None:
    for _ in range(calls):
        await call()


async def concurrent(call: Call, calls: int) -> None:
    async def worker() -> None:
        for _ in range(calls // AT_ONCE):
            await call()

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def measured(
    way: Callable[[Call, int], Awaitable[None]], call: Call, calls: int
) -> tuple[float, float]:
    """Milliseconds of this process' processor and of the clock, for one call."""
    gc.collect()
    started, busy = time.perf_counter(), time.process_time()
    await way(call, calls)
    return (time.process_time() - busy) / calls * 1000, (time.perf_counter() - started) / calls * 1000


async def compare(url: str, calls: int) -> None:
    print("| provider | calls | contestant | CPU per call | x bare SDK | clock per call | x bare SDK |")
    print("|---|---|---|---|---|---|---|")
    for provider in PROVIDERS:
        contestants = {name: make(provider, url) for name, make in CONTESTANTS.items()}
        for way, title in ((sequential, "one after another"), (concurrent, f"{AT_ONCE} at once")):
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
            for call in contestants.values():
                await way(call, AT_ONCE)  # connections, first imports, price table
            for _ in range(ROUNDS):
                for name, call in contestants.items():
                    found[name].append(await measured(way, call, calls))
            for name, figures in found.items():
                print_row(provider, title, name, figures, found["bare SDK"])


def print_row(
    provider: str, title: str, name: str, own: list[tuple[float, float]], other: list[tuple[float, float]]
) -> None:
    """Medians; a ratio is the median of the rounds' ratios, because rounds differ more than contestants."""
    cells = []
    for kind in (0, 1):
        ratio = statistics.median(mine[kind] / theirs[kind] for mine, theirs in zip(own, other, strict=True))
        cells.append(f"{statistics.median(figure[kind] for figure in own):.2f} ms | {ratio:.2f}")
    print(f"| {provider} | {title} | {name} | {cells[0]} | {cells[1]} |", flush=True)


# start and memory -------------------------------------------------------------------------


def memory_mb() -> float:
    """What this process alone and its share of common pages take."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this kernel does not tell Pss")


def weigh(what: str, provider: str, url: str) -> None:
    """One line of JSON: CPU seconds and megabytes of a process that is ready, then of one that has called."""
    started = cpu_seconds()
    call = CONTESTANTS[what](provider, url)
    ready_at, ready_mb = cpu_seconds(), memory_mb()

    async def first() -> None:
        await call()

    asyncio.run(first())
    called_at = cpu_seconds()
    gc.collect()
    print(json.dumps([ready_at - started, ready_mb, called_at - ready_at, memory_mb()]))


def cpu_seconds() -> float:
    """Of this process and of the children that it waited for: the price table is asked in one."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def weights(url: str) -> None:
    print("\n| provider | contestant | CPU until ready | memory then | CPU of the first call | memory then |")
    print("|---|---|---|---|---|---|")
    for provider in PROVIDERS:
        for name in CONTESTANTS:
            runs = [
                json.loads(
                    subprocess.run(
                        [sys.executable, __file__, "--weigh", name, provider, url],
                        capture_output=True,
                        check=True,
                        text=True,
                    ).stdout
                )
                for _ in range(3)
            ]
            ready_s, ready_mb, call_s, call_mb = (
                statistics.median(run[place] for run in runs) for place in range(4)
            )
            print(
                f"| {provider} | {name} | {ready_s:.2f} s | {ready_mb:.0f} MB | {call_s:.2f} s | {call_mb:.0f} MB |",
                flush=True,
            )


# the run ------------------------------------------------------------------------------------


def contest(calls: int) -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in (*PACKAGES.values(), FRAMEWORK))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {dt.date.today()}; "
        f"{versions}; {calls} calls x {ROUNDS} rounds\n"
    )
    server = subprocess.Popen(
        [sys.executable, ROOT / "bench" / "instant_endpoint.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        if calls:
            asyncio.run(compare(url, calls))
        weights(url)
    finally:
        server.kill()
        server.wait()
    print(f"\nThe aim is at most {AIM} x the bare SDK.")


def with_framework(calls: str) -> int:
    """This file again, in an environment that also has the framework; the SDKs keep their versions."""
    wanted = [f"{package}=={version(package)}" for package in PACKAGES.values()]
    wanted.append(f"{FRAMEWORK}[{','.join(PROVIDERS)}]")
    extra = [part for package in wanted for part in ("--with", package)]
    command = ["uv", "run", "--quiet", "--frozen", "--no-sync", *extra, "python", __file__]
    return subprocess.run([*command, "--contest", calls], cwd=ROOT, check=False).returncode


def main() -> int:
    match sys.argv[1:]:
        case ["--weigh", what, provider, url]:
            weigh(what, provider, url)
        case ["--contest", calls]:
            contest(int(calls))
        case [] | [_]:
            return with_framework(sys.argv[1] if len(sys.argv) > 1 else "300")
    return 0


if __name__ == "__main__":
    sys.exit(main())
