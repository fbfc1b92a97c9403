"""Every block of docs/models.md is what it says: files that load, models that open, jobs that are taken."""

import re
from pathlib import Path

import pytest

from agent2389.config.load import load_agent
from agent2389.config.model import AgentConfiguration
from agent2389.llm.failures import failure_of_status
from agent2389.llm.open import MAIN, Models
from agent2389.wire.submission import read_submission
from tests.support.structure import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text()
FILES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
JOBS = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
KEYS = {
    name: f"key-of-{name.lower()}"
    for name in (
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "GOOGLE_API_KEY",
        "VLLM_API_KEY",
        "OLLAMA_API_KEY",
        "LITELLM_API_KEY",
        "LLAMA_API_KEY",
    )
}


def configured(text: str, folder: Path) -> AgentConfiguration:
    file = folder / "agent.toml"
    file.write_text(f'{text}\n[agent]\nid = "of-the-page"\n')
    loaded = load_agent(file, environ=KEYS)
    assert not loaded.warnings
    return loaded.configuration


def the_file_with(text: str, folder: Path) -> AgentConfiguration:
    (found,) = (block for block in FILES if text in block)
    return configured(found, folder)


@pytest.mark.parametrize("number", range(len(FILES)))
async def test_every_file_loads_and_its_models_open(number: int, tmp_path: Path) -> None:
    section = configured(FILES[number], tmp_path).llm
    models = Models(section)
    assert models.main().name == section.model
    for name, endpoint in section.endpoints.items():
        assert models.endpoint(name).provider == endpoint.provider
        assert all(models.endpoint(name, other).name == other for other in endpoint.models)
    for endpoint in section.endpoints.values():
        assert endpoint.provider == "rehearsal" or endpoint.api_key is not None
    await models.close()


@pytest.mark.parametrize(
    ("text", "provider", "key"),
    [
        ('model = "gemini-2.5-flash"', "google", "GOOGLE_API_KEY"),
        ("max_tokens = 8000 ", "anthropic", "ANTHROPIC_API_KEY"),
        ('provider = "vllm"', "openai", "VLLM_API_KEY"),
        ("127.0.0.1:4000", "openai", "LITELLM_API_KEY"),
        ("127.0.0.1:8080", "openai", "LLAMA_API_KEY"),
        ('provider = "rehearsal"', "rehearsal", None),
        ("stream = true", "openai", "OPENAI_API_KEY"),
    ],
)
def test_a_block_means_the_provider_and_the_key_that_the_page_says(
    text: str, provider: str, key: str | None, tmp_path: Path
) -> None:
    section = the_file_with(text, tmp_path).llm
    assert section.provider == provider
    assert (section.api_key.get_secret_value() if section.api_key else None) == (KEYS[key] if key else None)


def test_the_jobs_are_taken_and_get_their_models(tmp_path: Path) -> None:
    models = Models(the_file_with("[llm.endpoints.careful]", tmp_path).llm)
    wanted = [read_submission(job.encode()).submission.llm for job in JOBS]
    names = [
        models.for_job({"endpoint": llm.endpoint, "provider": llm.provider, "model": llm.model}).name
        for llm in wanted
    ]
    assert names == ["claude-opus-4-8", "gpt-5-mini"]
    assert models.endpoint(MAIN).name == "gpt-4o-mini"


def test_the_table_of_failures_is_right() -> None:
    retried = [408, 409, 425, 429, 500, 503, 529]
    final = [307, 400, 401, 403, 404, 413]
    assert [status for status in retried + final if failure_of_status(status).retryable] == retried


def test_every_key_of_the_section_that_is_about_calls_is_explained() -> None:
    for key in (
        "fallback",
        "models",
        "breaker_failures",
        "breaker_seconds",
        "stream",
        "max_retries",
        "timeout",
    ):
        assert re.search(rf"^{key} = ", PAGE, re.MULTILINE), key
