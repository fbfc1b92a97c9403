"""Whether anything grows over hours: memory and open files of a process, the age of what is not sent."""

import time
from pathlib import Path

from agent2389.errors import Agent2389Error
from agent2389.ledger.inspection import Inspector
from agent2389.proving.figures import spread
from agent2389.proving.fleet import Fleet

PAGE = 4096
ASK_SECONDS = 1.0


class Sampler:
    """Looks at one long-lived member every ``every`` seconds, at the outbox each second; 0 means never."""

    def __init__(self, fleet: Fleet, inspector: Inspector, name: str, every: float) -> None:
        self._fleet = fleet
        self._inspector = inspector
        self._name = name
        self._every = every
        self._ask = time.monotonic()
        self._ages: list[float] = []
        self._next = time.monotonic() + every
        self._pid = 0
        self._samples: list[tuple[float, float, int]] = []

    async def look(self) -> None:
        """Take the samples whose time has come."""
        if self._every <= 0:
            return
        if time.monotonic() >= self._ask:
            self._ask = time.monotonic() + ASK_SECONDS
            await self._look_at_outbox()
        if time.monotonic() >= self._next:
            self._look_at_process()

    async def _look_at_outbox(self) -> None:
        try:
            self._ages.append((await self._inspector.unsent()).oldest_seconds)
        except Agent2389Error:
            # The ledger is away on purpose: the age is told when it is back.
            return

    def _look_at_process(self) -> None:
        self._next = time.monotonic() + self._every
        process = self._fleet.members[self._name].process
        if process is None or process.returncode is not None:
            return
        if process.pid != self._pid:
            # A new process begins anew; its growth is its own.
            self._pid, self._samples = process.pid, []
        try:
            resident = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE
            files = sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())
        except OSError:
            return
        self._samples.append((time.monotonic(), resident / 2**20, files))

    def figures(self) -> dict[str, float] | None:
        """MB an hour by least squares; open files, first and last; seconds of what was not sent."""
        if len(self._samples) < 3:
            return None
        times = [at - self._samples[0][0] for at, _, _ in self._samples]
        sizes = [size for _, size, _ in self._samples]
        middle_time, middle_size = sum(times) / len(times), sum(sizes) / len(sizes)
        slope = sum(
            (at - middle_time) * (size - middle_size) for at, size in zip(times, sizes, strict=True)
        ) / sum((at - middle_time) ** 2 for at in times)
        ages = spread(self._ages)
        return {
            "samples": len(times),
            "hours": round(times[-1] / 3600, 3),
            "ops_mb_first": round(sizes[0], 1),
            "ops_mb_last": round(sizes[-1], 1),
            "ops_mb_per_hour": round(slope * 3600, 2),
            "ops_files_first": self._samples[0][2],
            "ops_files_last": self._samples[-1][2],
            "outbox_age_p99": ages.p99 if ages else 0.0,
            "outbox_age_most": ages.most if ages else 0.0,
        }
