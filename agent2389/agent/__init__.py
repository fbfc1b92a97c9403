"""The working process."""
