"""The table of requirements in docs/protocol.md says what the conformance kit does and which tests hold it."""

from agent2389.proving.conformance.requirements import REQUIREMENTS
from agent2389.proving.conformance.run import CHECKS, ORDER
from tests.support.stand_in import FAULTS
from tests.support.structure import ROOT

HEAD = [
    "| id | requirement | how the kit looks at it | check | broken stand-in that fails exactly this |",
    "|---|---|---|---|---|",
]


def rows() -> list[str]:
    found = []
    for id_, item in sorted(REQUIREMENTS.items()):
        looked = (item.check.__doc__ or "").strip().splitlines()[0]
        where = f"`{item.check.__module__.removeprefix('agent2389.proving.')}.{item.check.__name__}`"
        found.append(f"| {id_} | {item.sentence} | {looked} | {where} | `[{id_}-{FAULTS[id_]}]` |")
    return found


def test_the_table_is_that_of_the_kit() -> None:
    assert CHECKS
    lines = (ROOT / "docs" / "protocol.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")][: len(HEAD) + len(REQUIREMENTS)]
    assert table == HEAD + rows(), "the table has to be:\n" + "\n".join(HEAD + rows())


def test_every_requirement_is_checked_once() -> None:
    assert sorted(ORDER) == sorted(REQUIREMENTS)
