"""An agent that kills itself: ``python -m tests.support.dying_agent POINT NTH run FILE``.

The program is the real one; at the ``NTH`` passing of ``POINT`` (of ``agent.faults``) it gets SIGKILL.
"""

import os
import runpy
import signal
import sys

from agent2389.agent import faults


def main() -> None:
    point, nth, *rest = sys.argv[1:]
    passed = 0

    def hook(name: str) -> None:
        nonlocal passed
        passed += name == point
        if passed == int(nth):
            os.kill(os.getpid(), signal.SIGKILL)

    assert point in faults.POINTS
    faults.intercept(hook)
    sys.argv = ["agent2389", *rest]
    runpy.run_module("agent2389", run_name="__main__")


if __name__ == "__main__":
    main()
