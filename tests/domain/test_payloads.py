"""What may be stored under an id that has no command."""

from __future__ import annotations

import pytest

from arc_es.domain.errors import CommandExists
from arc_es.domain.events import Body, PayloadStored
from arc_es.domain.payloads import NO_PAYLOAD, Payload, decide_payload, evolve_payload
from arc_es.domain.state import needs_body

SHA = "1" * 64
OTHER = "2" * 64
PARAMS = PayloadStored(params=Body(place="event", size=2, sha256=SHA, base64="e30="))
RESULT = PayloadStored(response=Body(place="message", size=5_000, sha256=SHA))
ERROR = PayloadStored(code="DB_DOWN", message="no connection", sha256=SHA)
BOTH = PayloadStored(params=PARAMS.params, response=RESULT.response)


def stored(*events: PayloadStored) -> Payload:
    payload = NO_PAYLOAD
    for event in events:
        payload = evolve_payload(payload, event)
    return payload


@pytest.mark.parametrize("wanted", [PARAMS, RESULT, ERROR, BOTH])
def test_what_is_new_is_stored_once(wanted: PayloadStored) -> None:
    assert decide_payload(wanted, NO_PAYLOAD, command_exists=False) == (wanted,)
    assert decide_payload(wanted, stored(wanted), command_exists=False) == ()
    assert decide_payload(wanted, stored(BOTH, wanted), command_exists=False) == ()


def test_nothing_given_stores_nothing() -> None:
    for payload in (NO_PAYLOAD, stored(BOTH)):
        assert decide_payload(PayloadStored(), payload, command_exists=False) == ()


@pytest.mark.parametrize("wanted", [PARAMS, RESULT, ERROR, BOTH, PayloadStored()])
def test_nothing_is_stored_under_the_id_of_a_command(wanted: PayloadStored) -> None:
    for payload in (NO_PAYLOAD, stored(wanted)):
        with pytest.raises(CommandExists) as refused:
            decide_payload(wanted, payload, command_exists=True)
        assert refused.value.code == "INVALID_STATE_TRANSITION"


def test_what_is_given_replaces_and_the_rest_stays() -> None:
    newer = PayloadStored(params=Body(place="event", size=2, sha256=OTHER, base64="W10="))
    assert decide_payload(newer, stored(BOTH), command_exists=False) == (newer,)
    assert stored(BOTH, newer) == stored(newer, RESULT)
    assert decide_payload(BOTH, stored(BOTH, newer), command_exists=False) == (BOTH,)


def test_an_error_and_a_result_of_the_same_bytes_are_different_answers() -> None:
    assert stored(RESULT) != stored(ERROR)
    assert decide_payload(ERROR, stored(RESULT), command_exists=False) == (ERROR,)
    assert stored(RESULT, ERROR) == stored(ERROR)


def test_the_body_beside_the_event_is_found() -> None:
    assert needs_body(BOTH) == RESULT.response
    assert needs_body(RESULT) == RESULT.response
    assert needs_body(PARAMS) is needs_body(ERROR) is needs_body(PayloadStored()) is None
    long_error = Body(place="message", size=5_000, sha256=SHA)
    assert needs_body(PayloadStored(params=PARAMS.params, code="A", message="B", body=long_error)) == long_error
