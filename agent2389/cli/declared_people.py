"""Arguments of the verbs by which people decide: retry, answer, approve, and their like."""

from typing import Annotated, Optional

import typer

from agent2389.cli.app import Globals, JobId, Json, approval_app, job_app, run_verb

Task = Annotated[
    Optional[str], typer.Option("--task", help="Which task, if several wait; a beginning of its id.")
]
Next = Annotated[Optional[str], typer.Option("--next", help="Hand on to this capability afterwards.")]
ApprovalId = Annotated[str, typer.Argument(help="Approval id or a unique beginning of one.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
Shown = Annotated[
    Optional[str], typer.Option("--sha256", help="Only if the arguments have this hash, as shown before.")
]


@job_app.command("events")
def job_events(
    job: JobId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job ends.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a line.")] = False,
) -> None:
    """Print the events of a job."""
    from agent2389.cli import people

    run_verb(people.events(Globals.api, job, follow=follow, as_jsonl=jsonl))


@job_app.command("retry")
def job_retry(
    job: JobId,
    words: Annotated[Optional[str], typer.Option("--words", help="Guidance for who tries again.")] = None,
    json: Json = False,
) -> None:
    """Try again: what waits for a person goes on, an ended job runs as a new one."""
    from agent2389.cli import people

    run_verb(people.act(Globals.api, job, "retry", {"words": words}, as_json=json))


@job_app.command("clone")
def job_clone(job: JobId, json: Json = False) -> None:
    """Run an ended job again as a new job."""
    from agent2389.cli import people

    run_verb(people.act(Globals.api, job, "clone", {}, as_json=json))


@job_app.command("escalate")
def job_escalate(
    job: JobId,
    task: Task = None,
    reason: Annotated[Optional[str], typer.Option("--reason", help="Why, for the record.")] = None,
    json: Json = False,
) -> None:
    """Take the open tasks of a job from the agents; they wait for a person then."""
    from agent2389.cli import people

    body = {"task_id": task, "reason": reason}
    run_verb(people.act(Globals.api, job, "escalate", body, as_json=json))


@job_app.command("accept")
def job_accept(job: JobId, task: Task = None, next: Next = None, json: Json = False) -> None:  # noqa: A002
    """Let the draft of a task that waits for a person be its result."""
    from agent2389.cli import people

    onward = {"capability": next} if next else None
    body = {"action": "accept", "task_id": task, "next": onward}
    run_verb(people.act(Globals.api, job, "decide", body, as_json=json))


@job_app.command("answer")
def job_answer(
    job: JobId,
    text: Annotated[str, typer.Argument(help="The result.")],
    task: Task = None,
    next: Next = None,  # noqa: A002
    json: Json = False,
) -> None:
    """Give the result of a task that waits for a person."""
    from agent2389.cli import people

    onward = {"capability": next} if next else None
    body = {"action": "answer", "words": text, "task_id": task, "next": onward}
    run_verb(people.act(Globals.api, job, "decide", body, as_json=json))


@job_app.command("override")
def job_override(
    job: JobId, text: Annotated[str, typer.Argument(help="The corrected result.")], json: Json = False
) -> None:
    """Correct a completed job: a new, completed job carries the text; the old result stays as it was."""
    from agent2389.cli import people

    run_verb(people.act(Globals.api, job, "override", {"text": text}, as_json=json))


@job_app.command("assign")
def job_assign(
    job: JobId,
    agent: Annotated[str, typer.Argument(help="Agent id, or the beginning of an incarnation.")],
    task: Task = None,
    json: Json = False,
) -> None:
    """Give a queued task to one agent, which has thirty seconds to take it."""
    from agent2389.cli import people

    run_verb(people.assign(Globals.api, job, agent, task=task, as_json=json))


@approval_app.command("list")
def approval_list(
    state: Annotated[str, typer.Option(help="pending, approved, rejected, withdrawn or all.")] = "pending",
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    json: Json = False,
) -> None:
    """List questions about tool calls, newest first."""
    from agent2389.cli import people

    run_verb(people.approvals(Globals.api, state=state, limit=limit, as_json=json))


@approval_app.command("show")
def approval_show(approval: ApprovalId, json: Json = False) -> None:
    """Show one question with the exact arguments."""
    from agent2389.cli import people

    run_verb(people.show_approval(Globals.api, approval, as_json=json))


@approval_app.command("approve")
def approval_approve(
    approval: ApprovalId, sha256: Shown = None, reason: Reason = "", json: Json = False
) -> None:
    """Let the tool run with exactly these arguments."""
    from agent2389.cli import people

    run_verb(
        people.decide_approval(Globals.api, approval, "approve", sha256=sha256, reason=reason, as_json=json)
    )


@approval_app.command("reject")
def approval_reject(
    approval: ApprovalId, sha256: Shown = None, reason: Reason = "", json: Json = False
) -> None:
    """Refuse the tool call; the agent learns the reason."""
    from agent2389.cli import people

    run_verb(
        people.decide_approval(Globals.api, approval, "reject", sha256=sha256, reason=reason, as_json=json)
    )
