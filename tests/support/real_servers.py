"""Servers that `.ci/run` brings up: their addresses, or the reason why a test cannot run here."""

import os

import pytest


def address_of(variable: str) -> str:
    """The value of ``variable``; without it the test is skipped and says how to have it run."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set; .ci/run brings that server up")
    return value
