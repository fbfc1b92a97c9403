"""Topics, envelopes, receipts and statuses: pure, no I/O."""
