"""The entry point: one verb called, errors as lines and exit codes."""

import os
import sys

from agent2389.cli import (
    declared_broker,
    declared_bus,
    declared_files,
    declared_fleet,
    declared_jobs,
    declared_mesh,
    declared_people,
    declared_proving,
    declared_router,
    declared_work,
)
from agent2389.cli.app import COMPLETE, Globals, app
from agent2389.errors import Agent2389Error

__all__ = ["VERBS", "app", "main"]

VERBS = (
    declared_mesh,
    declared_jobs,
    declared_people,
    declared_work,
    declared_fleet,
    declared_bus,
    declared_files,
    declared_router,
    declared_proving,
    declared_broker,
)
"""Importing them put the verbs on the tree."""


def main() -> None:
    """Entry point. Exit codes: 0 ok, 1 unexpected, 2 usage, 3 configuration or input, 4 not allowed,
    5 not found or unhealthy, 6 conflict, 7 job did not succeed, 8 wait timed out, 9 unreachable,
    10 drain timed out, 130 interrupted.
    """
    if COMPLETE in os.environ:
        # Only a shell that completes pays for the import.
        from typer import completion

        completion.completion_init()  # type: ignore[attr-defined]
    try:
        app(prog_name="agent2389")
    except Agent2389Error as error:
        _fail(error)
    except BaseExceptionGroup as group:
        known = group.subgroup(Agent2389Error)
        if known is None:
            raise
        _fail(_first(known))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(0) from None


def _first(group: BaseExceptionGroup[Agent2389Error]) -> Agent2389Error:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _fail(error: Agent2389Error) -> None:
    from agent2389.cli import output

    if Globals.verbose > 1:
        raise error
    output.report(error)
    raise SystemExit(error.exit_code) from None
