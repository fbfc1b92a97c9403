"""The record of work: one port, Postgres, the in-memory twin."""
