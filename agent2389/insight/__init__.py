"""Read models and commands shared by every front door."""
