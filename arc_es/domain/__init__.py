"""The pure domain: what a command is, what may happen to it, and why not.

Standard library only; no clock, no randomness, no I/O. All times are integers: microseconds since the Unix epoch, UTC.
"""
