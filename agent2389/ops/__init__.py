"""The health and operations service."""
