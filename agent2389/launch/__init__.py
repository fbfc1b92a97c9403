"""A whole mesh on one machine: embedded servers and supervised children."""
