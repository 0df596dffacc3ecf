"""Requests that are nearly right, and bytes that are nearly HTTP."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.fuzz import seeds

METHODS: Final = ("GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "BREW")
KNOWN_MAX: Final = 8
ODD: Final = 7
_ARGUMENT: Final = re.compile(r"<(?:[^<>]*:)?(\w+)>")


@dataclass(frozen=True)
class Endpoint:
    """One rule of the application with one of its methods."""

    name: str
    rule: str
    method: str


@dataclass(frozen=True)
class Known:
    """Stands for something that exists: the `index`th command, lease, token … of the world when it is sent."""

    argument: str
    index: int


@dataclass(frozen=True)
class Request:
    """One request; `path` is text and what stands for something known."""

    method: str
    path: tuple[str | Known, ...]
    headers: tuple[tuple[str, str], ...]
    body: bytes


T = TypeVar("T")


@st.composite
def rarely(draw: DrawFn, odd: SearchStrategy[T], usual: T) -> T:
    """Something odd once in eight: a request with much that is odd does not get far."""
    return draw(odd) if draw(st.integers(0, 7)) == ODD else usual


texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "\0",
            ":",
            "a:b",
            "/",
            "..",
            "\u202e",
            "ﬀ",
            "💥",
            "=" * 5,
            "e30",
            "NaN",
            "operator",
            "default",
            "x" * 1_025,
        ]
    ),
    st.sampled_from(["2026-02-30T00:00:00Z", "9999-12-31T23:59:60Z", "0000-01-01T00:00:00Z", "2026-01-01T00:00:00"]),
)
numbers = st.one_of(
    st.sampled_from([0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400]),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
values: SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def junk(draw: DrawFn) -> Any:
    """Anything, sometimes deep."""
    value = draw(values)
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 3, 300]))):
        value = [value]
    return value


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inside for place in _places(one, (*path, key)))]


def _alike(value: Any) -> SearchStrategy[Any]:
    """Odd values of the same kind, which get past the first look."""
    match value:
        case bool() | None:
            return leaves
        case int() | float():
            return numbers
        case str():
            return texts
        case _:
            return junk()


_LEFT_OUT: Final = object()
DEEP: Final = json.loads("[" * 300 + "]" * 300)


@st.composite
def spoiled(draw: DrawFn, seed: Any) -> Any:
    """A JSON value with up to three places changed, left out or added."""
    root = {"": copy.deepcopy(seed)}
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from(_places(root)[1:]))
        holder: Any = root
        for key in way:
            holder = holder[key]
        what = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if what == "replace":
            holder[last] = draw(st.one_of(_alike(holder[last]), junk()))
        elif what == "add" and isinstance(holder[last], dict):
            holder[last][draw(texts)] = draw(junk())
        elif what == "remove" and last != "":
            del holder[last]
    return root[""]


ODD_VALUES: Final = [
    None,
    True,
    -1,
    1.5,
    2**63,
    2**64,
    10**400,
    "",
    "\0",
    "a:b",
    "x" * 2_000,
    "é",
    [],
    {},
    [None],
    DEEP,
]


def sweep(endpoint: Endpoint) -> Iterator[Request]:
    """Each field of each valid body of an endpoint, left out and with each odd value: what chance may pass by."""
    for seed in seeds.BODIES.get(endpoint.name, []):
        root = {"": seed}
        for *way, last in _places(root)[1:]:
            for value in (*ODD_VALUES, _LEFT_OUT):
                changed = copy.deepcopy(root)
                holder: Any = changed
                for key in way:
                    holder = holder[key]
                if value is not _LEFT_OUT:
                    holder[last] = value
                elif last != "":
                    del holder[last]
                body = b"" if changed[""] is None else json.dumps(changed[""]).encode()
                yield Request(endpoint.method, _known_path(endpoint), (("Content-Type", "application/json"),), body)


def _known_path(endpoint: Endpoint) -> tuple[str | Known, ...]:
    """The path of an endpoint with the first known thing for each argument."""
    texts = _ARGUMENT.split(endpoint.rule)
    return tuple(Known(text, 0) if index % 2 else text for index, text in enumerate(texts))


@st.composite
def bodies(draw: DrawFn, name: str) -> bytes:
    """A body for an endpoint: JSON mostly, now and then not even that."""
    seed = draw(st.sampled_from(seeds.BODIES.get(name, [None])))
    value = draw(spoiled(seed))
    if value is None:
        return b""
    text = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return draw(rarely(garbled(text), text))


@st.composite
def garbled(draw: DrawFn, data: bytes) -> bytes:
    """Bytes with up to five places cut, doubled, or replaced."""
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 20)))
        by = draw(
            st.one_of(st.just(b""), st.just(data[start:end] * 2), st.binary(max_size=8), st.sampled_from(SPLINTERS))
        )
        data = data[:start] + by + data[end:]
    return data


SPLINTERS: Final = [b"\r\n", b"\r\n\r\n", b"\n", b"\0", b"\xff", b" ", b":", b"%", b"{", b'"', b"[" * 2_000, b"\\ud800"]

pieces: SearchStrategy[int | str] = st.one_of(
    texts.map(lambda text: quote(text, safe="")),
    st.sampled_from(
        ["%00", "%ff", "%", "%zz", "..", "%2e%2e", "%2f", "leases", "bootstrap", "x" * 3_000, "cmd_1", "a;b=c"]
    ),
)
queries = st.lists(
    st.tuples(
        st.sampled_from(["waitSeconds", "after", "limit", "expires", "signature", "response_token", "x", "", "%ff"]),
        st.one_of(
            st.sampled_from(
                ["", "0", "-1", "1.5", "9" * 30, "9" * 5_000, "%00", "%ff", "%", "a%20b", "é".encode().hex()]
            ),
            st.integers().map(str),
            texts.map(lambda text: quote(text, safe="")),
        ),
    ),
    max_size=3,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=50)
headers = st.lists(
    st.tuples(
        st.sampled_from(
            ["Content-Type", "Authorization", "User-Agent", "X-Request-Id", "traceparent", "tracestate", "Accept"]
        ),
        st.one_of(
            header_values.map(str.strip),
            st.sampled_from(
                ["Basic Og==", "Basic ####", "Bearer", "Bearer ", "text/plain", "application/json; charset=x"]
            ),
            st.just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ),
    ),
    max_size=2,
)


@st.composite
def requests(draw: DrawFn, endpoint: Endpoint) -> Request:
    """A request to an endpoint, or to something like it."""
    method = draw(rarely(st.sampled_from(METHODS), endpoint.method))
    path: list[str | Known] = [draw(rarely(st.sampled_from(["/v1/", "//v1", "/v1/v1", "/v2"]), "/v1"))]
    at = 0
    for match in _ARGUMENT.finditer(endpoint.rule):
        path.append(endpoint.rule[at : match.start()])
        piece = draw(rarely(pieces, draw(st.integers(0, KNOWN_MAX))))
        path.append(Known(match[1], piece) if isinstance(piece, int) else piece)
        at = match.end()
    path.append(endpoint.rule[at:] + draw(rarely(st.sampled_from(["/", "//", "/x", "/%2e"]), "")))
    query = draw(rarely(queries, ""))
    sent = {"Content-Type": "application/json"} | dict(draw(rarely(headers, [])))
    return Request(method, (*path, f"?{query}" if query else ""), tuple(sent.items()), draw(bodies(endpoint.name)))
