"""The SDK's reference, from its docstrings; a part of docs/generate.py."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from inspect import cleandoc
from types import FunctionType, ModuleType
from typing import Any, Final

import arc_es.client
import arc_es.testing

GROUPS: Final = {
    "Asking": ("Caller", "Command", "SyncCaller", "SyncCommand"),
    "Doing": ("Worker", "Context", "SyncContext", "CommandError", "GiveBack", "Stopped", "Outcome"),
    "Notes": ("Notes", "FolderNotes", "MemoryNotes"),
    "Bodies": ("FileBody", "Sink"),
    "Errors": (
        "ArcError",
        "Refused",
        "Unavailable",
        "ServerUnreachable",
        "BadAnswer",
        "UrlRefused",
        "CommandEnded",
        "CommandFailed",
        "CommandCancelled",
        "CommandExpired",
        "NoResultYet",
        "Unfit",
    ),
    "Single calls": ("ArcClient", "Lease", "AgentAnswer", "Completion", "Backoff", "retrying"),
}
_SECTION: Final = re.compile(r"^(Args|Raises):$", re.MULTILINE)
_TITLES: Final = {"Args": "Arguments:", "Raises": "Raises:"}


def sdk() -> str:
    """Every public name of `arc_es.client` and `arc_es.testing`, in groups."""
    listed = {name for names in GROUPS.values() for name in names}
    if listed != set(arc_es.client.__all__):
        raise ValueError(f"GROUPS and arc_es.client differ: {listed ^ set(arc_es.client.__all__)}")
    parts = [part for title, names in GROUPS.items() for part in _group(title, arc_es.client, names)]
    parts += _group("Testing", arc_es.testing, arc_es.testing.__all__)
    return "\n".join(parts).rstrip("\n") + "\n"


def _group(title: str, module: ModuleType, names: tuple[str, ...] | list[str]) -> Iterator[str]:
    yield from (f"## {title}", "", f"`from {module.__name__} import {', '.join(names)}`", "")
    for name in names:
        thing = getattr(module, name)
        yield from _class(name, thing) if inspect.isclass(thing) else _function(name, thing, "###")


def _class(name: str, cls: type[Any]) -> Iterator[str]:
    made = f"({_parameters(cls.__init__)})" if _is_made_by_users(cls) else ""
    yield from (f"### {name}", "", f"`class {name}{made}`", "", *_text(cls), "")
    if made and not dataclasses.is_dataclass(cls) and cls.__init__.__doc__:
        yield from (*_text(cls.__init__), "")
    for found in _members(cls):
        if isinstance(inspect.getattr_static(cls, found), property):
            yield from (f"#### {name}.{found}", "", *_text(inspect.getattr_static(cls, found).fget), "")
        else:
            yield from _function(f"{name}.{found}", getattr(cls, found), "####")


def _is_made_by_users(cls: type[Any]) -> bool:
    return "__init__" in vars(cls) and (dataclasses.is_dataclass(cls) or cls.__init__.__doc__ is not None)


def _members(cls: type[Any]) -> Iterator[str]:
    """Documented methods and properties, inherited ones of ours included, in the order in which they are written."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.startswith("arc_es") and not issubclass(base, BaseException):
            for name, member in vars(base).items():
                plain = isinstance(member, FunctionType | property) and not name.startswith("_")
                if plain and name not in seen and inspect.getdoc(member):
                    seen.add(name)
                    yield name


def _function(name: str, function: Any, heading: str) -> Iterator[str]:
    kind = "async " if inspect.iscoroutinefunction(inspect.unwrap(function)) else ""
    short = name.rpartition(".")[2]
    yield from (f"{heading} {name}", "", f"`{kind}{short}({_parameters(function)})`", "", *_text(function), "")


def _parameters(function: Any) -> str:
    signature = inspect.signature(inspect.unwrap(function))
    kept = [_plain(one) for one in signature.parameters.values() if one.name != "self"]
    text = str(signature.replace(parameters=kept, return_annotation=inspect.Signature.empty))
    return re.sub(r"<factory>", "...", text[1:-1]).replace("'", "").replace('"', "")


def _plain(parameter: inspect.Parameter) -> inspect.Parameter:
    """A default that differs between machines and versions is shown as dots."""
    simple = (int, float, str, bytes, bool, type(None), inspect.Parameter)
    fixed = parameter.default is inspect.Parameter.empty or isinstance(parameter.default, simple)
    if not fixed or "/" in str(parameter.default):
        return parameter.replace(default=_Dots())
    return parameter


class _Dots:
    def __repr__(self) -> str:
        return "..."


def _text(thing: Any) -> Iterator[str]:
    """A docstring in Markdown: its sections as lists."""
    head, *sections = _SECTION.split(cleandoc(thing.__doc__ or ""))
    yield head.strip()
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        yield from ("", _TITLES[title], "")
        entries = re.split(r"\n(?= {4}\S)", body.rstrip().removeprefix("\n"))
        for entry in entries:
            names, _, told = " ".join(entry.split()).partition(": ")
            yield f"* `{names}`: {told}" if told else f"* {names}"
