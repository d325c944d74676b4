"""The client of the control API (docs/control-api.md): a server of another process as the classes for tests see it."""
