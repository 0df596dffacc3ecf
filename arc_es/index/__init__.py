"""The index: all commands in a file on disk, for finding them. Disposable, never a source of truth."""

from arc_es.index.index import Index

__all__ = ["Index"]
