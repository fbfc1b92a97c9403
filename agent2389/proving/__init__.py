"""Proofs on running things: what must hold in a live ledger, and faults that try to break it."""
