"""x."""


def doctor() -> int:
    """Stub."""
    return 0
