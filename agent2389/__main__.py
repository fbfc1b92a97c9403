"""Run the command line with ``python -m agent2389``."""

from agent2389.cli.main import main

if __name__ == "__main__":
    main()
