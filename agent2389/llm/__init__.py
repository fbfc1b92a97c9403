"""Language models: one port, wire adapters, the keyless rehearsal model."""
