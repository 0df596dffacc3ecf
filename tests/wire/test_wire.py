"""Reading and writing the public JSON, by properties; the single rows of the protocol are in tests/http."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arc_es.domain.limits import SECOND
from arc_es.wire import (
    ErrorResponse,
    InlineBody,
    StorageBody,
    SuccessResponse,
    WireError,
    clamp,
    count,
    cut,
    format_time,
    integer,
    parse_base64,
    parse_body,
    parse_response,
    parse_time,
    parse_wait,
    valid_tracestate,
)
from arc_es.wire_leases import parse_lease

T = TypeVar("T")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC))  # noqa: DTZ001
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def outcome(read: Callable[[], T]) -> T | WireError:
    """What was read, or the refusal."""
    try:
        return read()
    except WireError as error:
        return error


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@given(MOMENTS)
@example(datetime(999, 12, 31, tzinfo=UTC))
def test_times_are_written_in_the_one_form_and_read_back(moment: datetime) -> None:
    text = format_time(micros(moment))
    assert TIME.fullmatch(text)
    assert ("." in text) == (moment.microsecond != 0)
    assert parse_time(text, "at") == micros(moment)


@given(MOMENTS, OFFSETS)
def test_any_offset_is_the_same_moment(moment: datetime, zone: timezone) -> None:
    assert parse_time(moment.astimezone(zone).isoformat(), "at") == micros(moment)


@given(MOMENTS, st.text("0123456789", min_size=1, max_size=9))
def test_fractions_are_cut_not_rounded(moment: datetime, digits: str) -> None:
    whole = moment.replace(microsecond=0)
    text = f"{format_time(micros(whole)).removesuffix('Z')}.{digits}Z"
    assert parse_time(text, "at") == micros(whole) + int(digits.ljust(9, "0")) // 1000


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2026-03-01t10:05:00z", "2026-03-01T10:05:00Z"),
        ("2024-02-29T00:00:00-00:00", "2024-02-29T00:00:00Z"),
    ],
)
def test_what_rfc_3339_allows_too(text: str, same: str) -> None:
    assert format_time(parse_time(text, "at")) == same


@given(JSON | st.text(alphabet="0123456789-:TZ+. "))
def test_any_value_is_a_time_or_refused(value: Any) -> None:
    found = outcome(lambda: parse_time(value, "at"))
    if isinstance(found, WireError):
        assert (found.status, found.code) == (422, "INVALID_REQUEST")
    else:
        assert TIME.fullmatch(format_time(found))


@given(st.binary(max_size=100))
def test_base64_of_any_bytes_is_read(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    assert parse_base64(text, "b") == InlineBody(raw, text)


@given(st.text(alphabet="AZaz09+/=-_ \n", max_size=12) | st.text(max_size=6))
def test_base64_has_one_form_only(text: str) -> None:
    found = outcome(lambda: parse_base64(text, "b"))
    if isinstance(found, WireError):
        assert (found.status, found.code) == (400, "INVALID_REQUEST")
    else:
        assert base64.b64encode(found.raw).decode() == text


@given(st.integers())
def test_integers_of_any_size_are_clamped(number: int) -> None:
    assert clamp(integer(number, "n"), 1, 43_200, 60) == max(1, min(number, 43_200))
    if number >= 0:
        assert clamp(count(number, "n"), 0, 1000, 1) == min(number, 1000)
    else:
        with pytest.raises(WireError):
            count(number, "n")


@pytest.mark.parametrize("value", [1.0, 0.5, True, False, "1", None, [], {}, float("nan")])
def test_what_is_no_integer(value: Any) -> None:
    with pytest.raises(WireError) as refused:
        integer(value, "n")
    assert refused.value.status == 422


@pytest.mark.parametrize("value", [1e19, 1e300, float("inf")])
def test_integers_that_the_json_reader_made_floats(value: float) -> None:
    assert clamp(count(value, "n"), 0, 1000, 1) == 1000
    with pytest.raises(WireError):
        count(-value, "n")


@given(st.text(max_size=50), st.integers(0, 200))
def test_cutting_keeps_whole_characters(text: str, padding: int) -> None:
    long = "x" * (150_000 - padding) + text
    kept = cut(long)
    assert long.startswith(kept)
    assert len(kept.encode()) <= 150_000
    rest = long[len(kept) :]
    assert not rest or len(kept.encode()) + len(rest[0].encode()) > 150_000


@given(JSON)
def test_bodies_of_any_shape_are_read_or_refused(value: Any) -> None:
    for read in (lambda: parse_body(value, "b"), lambda: parse_response(value), lambda: parse_lease(value)):
        found = outcome(read)
        assert not isinstance(found, WireError) or found.status in (400, 422)


def test_bodies_and_responses() -> None:
    assert parse_body({"mode": "storage", "size": None, "storageGetRequest": "ignored"}, "b") == StorageBody(None)
    assert parse_body({"mode": "storage", "size": 7, "storagePutUsed": True}, "b") == StorageBody(7)
    assert parse_response({"status": "success", "response": {"mode": "inline", "inlineBase64": ""}}) == SuccessResponse(
        InlineBody(b"", "")
    )
    assert parse_response({"status": "error", "code": "", "message": "", "details": None}) == ErrorResponse(
        "", "", None
    )


@given(st.none() | st.text(max_size=12) | st.integers(0, 10**20).map(str))
def test_wait_seconds_of_a_query(text: str | None) -> None:
    found = outcome(lambda: parse_wait(text))
    if isinstance(found, WireError):
        assert found.status == 422
    else:
        assert 0 <= found <= 60


def test_the_lease_request_of_the_first_generation() -> None:
    found = parse_lease({"deploymentId": "dep_7", "maxLeases": 10, "leaseSeconds": 60})
    assert (found.target, found.leases_max, found.lease_seconds, found.wait_seconds) == (None, 10, 60, 0)


@pytest.mark.parametrize("header", [None, "", "no equals sign", "a=\n", "a=" + "b" * 511])
def test_tracestates_that_cannot_be_passed_on(header: str | None) -> None:
    assert valid_tracestate(header) is None


def test_a_second_is_a_million() -> None:
    assert format_time(1_767_225_600 * SECOND + 1) == "2026-01-01T00:00:00.000001Z"
