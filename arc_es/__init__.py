"""arc_es: a durable remote-command service whose every transition is an event."""

__version__ = "0.1.0"
