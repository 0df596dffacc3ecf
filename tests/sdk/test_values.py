"""Typed values: what JSON becomes, what it refuses to become, and what values become."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es.client.values import Unfit, decode, encode


class Colour(Enum):
    RED = "red"


@dataclass
class Part:
    name: str
    colour: Colour = Colour.RED


@dataclass(frozen=True)
class Report:
    day: date
    rows: int
    at: datetime | None = None
    parts: list[Part] = field(default_factory=list)
    by_id: dict[str, tuple[int, float]] = field(default_factory=dict)
    kind: Literal["full", "short"] = "full"
    tags: frozenset[str] = frozenset()
    id: UUID | None = None


class Loose(TypedDict):
    anything: int


class Model:
    """As pydantic's are used."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @classmethod
    def model_validate(cls, value: Any) -> Model:
        if not isinstance(value, int):
            raise ValueError("an integer is required")  # noqa: TRY004 - as pydantic does
        return cls(value)

    def model_dump(self, *, mode: str) -> Any:
        assert mode == "json"
        return {"model": self.value}


REPORT = Report(
    day=date(2026, 3, 1),
    rows=17,
    at=datetime(2026, 3, 1, 10, tzinfo=UTC),
    parts=[Part("a"), Part("b", Colour.RED)],
    by_id={"x": (1, 2.0)},
    kind="short",
    tags=frozenset({"t"}),
    id=UUID(int=5),
)


def test_a_dataclass_survives_the_way_there_and_back() -> None:
    assert decode(encode(REPORT), Report) == REPORT


def test_what_is_left_out_gets_its_default_and_what_is_unknown_is_ignored() -> None:
    assert decode(b'{"day":"2026-03-01","rows":1,"new":true}', Report) == Report(date(2026, 3, 1), 1)


@pytest.mark.parametrize(
    ("raw", "wanted", "says"),
    [
        (b"{", Any, "params: not JSON"),
        (b'{"day":"2026-03-01"}', Report, "params.rows is missing"),
        (b'{"day":"soon","rows":1}', Report, "params.day: 'soon' is no date"),
        (b'{"day":"2026-03-01","rows":true}', Report, "params.rows: True is no int"),
        (b'{"day":"2026-03-01","rows":1,"parts":[{"name":1}]}', Report, "params.parts[0].name: 1 is no str"),
        (b'{"day":"2026-03-01","rows":1,"kind":"x"}', Report, "params.kind: 'x' is none of"),
        (b'{"day":"2026-03-01","rows":1,"by_id":{"x":[1]}}', Report, "params.by_id.x: 1 values instead of 2"),
        (b'{"day":"2026-03-01","rows":1,"at":5}', Report, "params.at: 5 is no datetime"),
        (b"[]", Report, "params: [] is no object"),
        (b'"x"', int, "params: 'x' is no int"),
        (b'"x"', Model, "params: an integer is required"),
        (b'"blue"', Colour, "params: 'blue' is no Colour"),
        (b"1", None, "params: 1 is no NoneType"),
    ],
)
def test_a_misfit_says_where(raw: bytes, wanted: Any, says: str) -> None:
    with pytest.raises(Unfit) as unfit:
        decode(raw, wanted)
    assert str(unfit.value).startswith(says.replace("NoneType", "None")) or says in str(unfit.value)


class Struct(msgspec.Struct):
    number: int


def test_structs_of_msgspec_read_and_write_themselves() -> None:
    assert decode(encode(Struct(1)), Struct) == Struct(1)
    assert decode(encode({"a": [Struct(1)]}), dict[str, list[Struct]]) == {"a": [Struct(1)]}
    with pytest.raises(Unfit, match="Expected `int`, got `str`"):
        decode(b'{"number":"x"}', Struct)


def test_other_kinds_of_values() -> None:
    assert decode(b"\xff", bytes) == b"\xff"
    assert decode(b'{"anything":1}', Loose) == {"anything": 1}
    assert decode(b"1", float) == 1
    assert decode(b"[1,2]", list[int]) == [1, 2]
    assert decode(b"5", Model).value == 5
    assert decode(b'"1.50"', Decimal) == Decimal("1.50")
    assert json.loads(encode({"m": Model(5), "d": Decimal("1.5"), "s": {1}})) == {
        "m": {"model": 5},
        "d": "1.5",
        "s": [1],
    }
    assert encode(b"raw") == b"raw"
    with pytest.raises(TypeError, match="not JSON serializable: object"):
        encode(object())


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(PLAIN)
def test_plain_values_survive_the_way_there_and_back(value: Any) -> None:
    assert decode(encode(value), Any) == value
    assert decode(encode(value), object) == value


@given(st.binary(), st.sampled_from([Report, int, list[Part], dict[str, int], str | None, Colour, Loose]))
def test_no_bytes_break_it(raw: bytes, wanted: Any) -> None:
    with suppress(Unfit):
        decode(raw, wanted)


@given(PLAIN, st.sampled_from([Report, int, list[Part], dict[str, int], str | None, Colour, tuple[int, ...], Model]))
def test_no_json_breaks_it(value: Any, wanted: Any) -> None:
    with suppress(Unfit):
        decode(encode(value), wanted)
