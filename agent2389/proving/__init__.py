"""Proving: simulation, chaos and checks of a mesh."""
