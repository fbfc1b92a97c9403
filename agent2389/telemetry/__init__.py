"""Logs, metrics and trace names: what a process tells about itself."""
