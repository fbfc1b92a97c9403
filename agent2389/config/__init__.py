"""Configuration: frozen sections, loaded with all errors at once."""
