"""The conformance kit: any implementation of the 2389 Agent Protocol against each requirement by its id."""
