"""The only room that names real adapters: opens them in order, closes them in reverse."""
