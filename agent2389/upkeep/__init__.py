"""Level-triggered chores and intake that any process takes when due."""
