"""Submitting responses (`arc.v1` 2.6, 3.3, 4.4 Response)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from arc_es.signing import Signer, key_from_admin_token
from tests.http.driver import ADMIN, E30, Client, Served, failure, success

T0_SECONDS = 1_772_359_200


def signed(command_id: str, expires: int, key: bytes | None = None) -> str:
    token = Signer(key or key_from_admin_token(ADMIN)).response_token(command_id, expires)
    return f"/v1/commands/{command_id}/response?response_token={token}&expires={expires}"


async def leased(served: Served, **more: Any) -> str:
    command_id = await served.create()
    await served.lease(**more)
    return command_id


async def put(served: Served, path: str, response: Any = None, **headers: str) -> Any:
    return await served.client.presenting(None).put(path, response or success(), headers=headers)


# --- who may


async def test_the_url_of_the_envelope_is_enough(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease()
    url = lease["envelope"]["responseHandling"]["submitResponseUrl"]
    answer = await put(served, f"/v1/commands/{url}")
    assert (answer.status, answer.body) == (200, b"")
    assert (await served.status(command_id))["response"] == success()
    again = await put(served, f"/commands/{url}")
    assert again.status == 200


async def test_an_open_service_still_wants_a_signature_from_those_without_header(open_served: Served) -> None:
    command_id = await leased(open_served)
    path = f"/v1/commands/{command_id}/response"
    (await put(open_served, path)).refused(401, "UNAUTHORIZED")
    wrong = signed(command_id, T0_SECONDS + 60, b"other key")
    (await put(open_served, wrong)).refused(401, "UNAUTHORIZED")
    assert (await put(open_served, signed(command_id, T0_SECONDS + 60, b"example-signing-key"))).status == 200


async def test_a_known_token_decides_and_the_query_is_not_looked_at(served: Served) -> None:
    command_id = await leased(served)
    answer = await served.client.put(f"/v1/commands/{command_id}/response?response_token=zz&expires=x", success())
    assert answer.status == 200


@pytest.mark.parametrize("header", ["Bearer wrong", "Basic !!", "Digest x", "Bearer", ""])
async def test_in_every_other_case_the_query_decides(served: Served, header: str) -> None:
    command_id = await leased(served)
    (await put(served, f"/v1/commands/{command_id}/response", Authorization=header)).refused(401, "UNAUTHORIZED")
    assert (await put(served, signed(command_id, T0_SECONDS + 60), Authorization=header)).status == 200


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 401, "UNAUTHORIZED"),
        ("response_token=ab", 401, "UNAUTHORIZED"),
        ("expires=1800000000", 401, "UNAUTHORIZED"),
        ("expires=x", 401, "UNAUTHORIZED"),
        ("response_token=ab&expires=x", 400, "INVALID_REQUEST"),
        ("response_token=ab&expires=", 400, "INVALID_REQUEST"),
        ("response_token=ab&expires=1.5", 400, "INVALID_REQUEST"),
        ("response_token=ab&expires=1e9", 400, "INVALID_REQUEST"),
        ("response_token=ab&expires=1772359260", 401, "UNAUTHORIZED"),
        ("response_token=&expires=1772359260", 401, "UNAUTHORIZED"),
        (f"response_token={'g' * 64}&expires=1772359260", 401, "UNAUTHORIZED"),
        (f"response_token={'0' * 64}&expires=1772359260", 401, "UNAUTHORIZED"),
        (f"response_token={'0' * 64}&expires=-1", 401, "UNAUTHORIZED"),
        (f"response_token={'0' * 64}&expires=" + "9" * 18, 401, "UNAUTHORIZED"),
        (f"response_token={'0' * 64}&expires=" + "9" * 6000, 401, "UNAUTHORIZED"),
        ("response_token=%C3%A9&expires=1772359260", 401, "UNAUTHORIZED"),
        ("response_token=%FF&expires=%FF", 400, "INVALID_REQUEST"),
    ],
)
async def test_queries_that_are_refused_before_body_and_command(
    served: Served, query: str, status: int, code: str
) -> None:
    path = f"/v1/commands/cmd_unknown/response?{query}"
    answer = await served.client.presenting(None).put(path, raw=b"no JSON")
    answer.refused(status, code)


async def test_with_a_good_query_the_body_comes_before_the_command(served: Served) -> None:
    path = signed("cmd_unknown", T0_SECONDS + 60)
    nobody = served.client.presenting(None)
    (await nobody.put(path, raw=b"no JSON")).refused(415, "UNSUPPORTED_MEDIA_TYPE")
    (await nobody.put(path, {"status": "maybe"})).refused(422, "INVALID_REQUEST")
    (await nobody.put(path, success())).refused(404, "COMMAND_NOT_FOUND")


async def test_upper_case_hex_verifies(served: Served) -> None:
    command_id = await leased(served)
    path, query = signed(command_id, T0_SECONDS + 60).split("response_token=")
    token, rest = query.split("&")
    assert (await put(served, f"{path}response_token={token.upper()}&{rest}")).status == 200


async def test_a_token_is_for_one_command(served: Served) -> None:
    one, other = await leased(served), await leased(served)
    path = signed(one, T0_SECONDS + 60).replace(one, other)
    (await put(served, path)).refused(401, "UNAUTHORIZED")


async def test_a_token_lives_until_its_second_is_reached(served: Served) -> None:
    command_id = await leased(served)
    path = signed(command_id, T0_SECONDS + 60)
    served.clock.advance(60)
    assert (await put(served, path)).status == 200
    served.clock.advance(0.000001)
    (await put(served, path)).refused(401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    ("lease_seconds", "latest"),
    [(60, 7500), (7000, 7600), (6900, 7500), (43_200, 43_800)],
)
async def test_tokens_beyond_7500_seconds_need_a_long_lease(served: Served, lease_seconds: int, latest: int) -> None:
    command_id = await leased(served, leaseSeconds=lease_seconds)
    (await put(served, signed(command_id, T0_SECONDS + latest + 1))).refused(401, "UNAUTHORIZED")
    assert (await put(served, signed(command_id, T0_SECONDS + latest))).status == 200


async def test_the_latest_lease_end_ever_granted_counts(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease(leaseSeconds=43_200)
    await served.release(lease["leaseId"])
    await served.lease(leaseSeconds=10)
    assert (await put(served, signed(command_id, T0_SECONDS + 43_500))).status == 200


async def test_an_unknown_command_has_no_long_tokens(served: Served) -> None:
    (await put(served, signed("cmd_x", T0_SECONDS + 7501))).refused(401, "UNAUTHORIZED")
    (await put(served, signed("cmd_x", T0_SECONDS + 7500))).refused(404, "COMMAND_NOT_FOUND")


async def test_who_answered_is_recorded_without_the_token(served: Served) -> None:
    command_id = await leased(served)
    path = signed(command_id, T0_SECONDS + 60)
    await put(served, path)
    answer = await served.client.get(f"/v1/commands/{command_id}/events")
    assert answer.json["events"][-1]["by"]["kind"] == "response-token"
    assert path.split("response_token=")[1].split("&")[0].encode() not in answer.body


# --- what happens


async def test_success_and_error(served: Served) -> None:
    good, bad = await leased(served), await leased(served)
    assert (await served.respond(good, success())).status == 200
    assert (await served.respond(bad, failure(details="pool exhausted"))).status == 200
    assert (await served.status(good))["state"] == "SUCCEEDED"
    status = await served.status(bad)
    assert (status["state"], status["response"]) == ("FAILED", failure(details="pool exhausted"))


async def test_any_code_and_message_are_stored(served: Served) -> None:
    command_id = await leased(served)
    odd = failure(code="", message="\0 \n ünï ✓", details="")
    await served.respond(command_id, odd)
    assert (await served.status(command_id))["response"] == odd


async def test_an_unknown_command_is_404(served: Served) -> None:
    (await served.respond("cmd_unknown")).refused(404, "COMMAND_NOT_FOUND")


async def test_a_command_that_was_never_dispatched_is_400(served: Served) -> None:
    command_id = await served.create()
    end = await served.journal.end()
    (await served.respond(command_id)).refused(400, "INVALID_STATE_TRANSITION")
    assert await served.journal.end() == end


async def test_the_first_answer_wins_and_the_others_are_recorded(served: Served) -> None:
    command_id = await leased(served)
    await served.respond(command_id, success(b"1"))
    for late in (success(b"2"), failure("LATE")):
        answer = await served.respond(command_id, late)
        assert (answer.status, answer.body) == (200, b"")
    assert (await served.status(command_id))["response"] == success(b"1")
    events = await served.events(command_id)
    assert [event["type"] for event in events[2:]] == [
        "CommandSucceeded",
        "LateResponseRecorded",
        "LateResponseRecorded",
    ]
    assert [event["data"]["status"] for event in events[3:]] == ["success", "error"]


async def test_the_same_answer_again_is_only_acknowledged(served: Served) -> None:
    command_id = await leased(served)
    await served.respond(command_id)
    end = await served.journal.end()
    assert (await served.respond(command_id)).status == 200
    assert await served.journal.end() == end


@pytest.mark.parametrize("how", ["release", "lease end"])
@pytest.mark.parametrize("leased_again", [False, True])
async def test_an_old_holder_may_answer(served: Served, how: str, *, leased_again: bool) -> None:
    command_id = await served.create()
    (old,) = await served.lease(leaseSeconds=10)
    if how == "release":
        await served.release(old["leaseId"])
    else:
        served.clock.advance(10)
    if leased_again:
        assert len(await served.lease()) == 1
    assert (await served.respond(command_id)).status == 200
    status = await served.status(command_id)
    assert (status["state"], status["attempt"]) == ("SUCCEEDED", 2)
    assert await served.lease() == []


async def test_the_loser_after_a_second_lease_gets_200_too(served: Served) -> None:
    command_id = await served.create()
    (old,) = await served.lease()
    await served.release(old["leaseId"])
    (new,) = await served.lease()
    for lease, raw in ((old, b"old"), (new, b"new")):
        url = lease["envelope"]["responseHandling"]["submitResponseUrl"]
        assert (await put(served, f"/v1/commands/{url}", success(raw))).status == 200
    assert (await served.status(command_id))["response"] == success(b"old")


async def test_a_passed_deadline_comes_first(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:05Z")
    await served.lease()
    served.clock.advance(5)
    assert (await served.status(command_id))["state"] == "DISPATCHED"
    served.clock.advance(0.000001)
    assert (await served.respond(command_id)).status == 200
    status = await served.status(command_id)
    assert status["state"] == "EXPIRED"
    assert "response" not in status
    assert (await served.types(command_id))[-2:] == ["CommandExpired", "LateResponseRecorded"]


async def test_an_answer_at_the_deadline_is_in_time(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:05Z")
    await served.lease()
    served.clock.advance(5)
    await served.respond(command_id)
    served.clock.advance(1)
    assert (await served.status(command_id))["state"] == "SUCCEEDED"


async def test_of_racing_answers_one_wins(served: Served) -> None:
    command_id = await leased(served)
    statuses: list[int] = []

    async def answer(number: int) -> None:
        statuses.append((await served.respond(command_id, success(str(number).encode()))).status)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(answer, number)
    assert statuses == [200] * 6
    types = await served.types(command_id)
    assert types.count("CommandSucceeded") == 1
    assert types.count("LateResponseRecorded") == 5


# --- long errors


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * 150_000, 150_000),
        ("x" * 150_001, 150_000),
        ("é" * 75_001, 75_000),
        ("x" + "é" * 75_000, 75_000),
        ("€" * 50_001, 50_000),
    ],
)
async def test_long_texts_are_cut_at_a_character(served: Served, text: str, kept: int) -> None:
    command_id = await leased(served)
    assert (await served.respond(command_id, failure(message=text, details=text))).status == 200
    response = (await served.status(command_id))["response"]
    assert response == failure(message=text[:kept], details=text[:kept])
    payload = (await served.client.get(f"/v1/commands/{command_id}/payload")).ok()
    assert payload["response"] == response


@pytest.mark.parametrize("length", [900, 1000, 4000, 4096, 5000, 140_000])
async def test_texts_of_any_length_come_out_whole(served: Served, length: int) -> None:
    command_id = await leased(served)
    long = failure(code="C" * length, message="\u0001é" * (length // 3), details="d")
    assert (await served.respond(command_id, long)).status == 200
    assert (await served.status(command_id))["response"] == long


async def test_secrets_and_bodies_are_not_in_the_events(served: Served) -> None:
    command_id = await leased(served)
    await served.respond(command_id, success(b"very secret result"))
    raw = (await served.client.get(f"/v1/commands/{command_id}/events")).body
    assert b"base64" not in raw
    assert success(b"very secret result")["response"]["inlineBase64"].encode() not in raw
    assert f'"{E30}"'.encode() not in raw


async def test_the_payload_shows_what_there_is(client: Client, served: Served) -> None:
    command_id = await served.create()
    path = f"/v1/commands/{command_id}/payload"
    assert (await client.get(path)).ok() == {"commandId": command_id, "params": {"mode": "inline", "inlineBase64": E30}}
    await served.lease()
    await served.respond(command_id)
    assert (await client.get(path)).ok() == {
        "commandId": command_id,
        "params": {"mode": "inline", "inlineBase64": E30},
        "response": success(),
    }
    (await client.get("/v1/commands/cmd_unknown/payload")).refused(404, "COMMAND_NOT_FOUND")


async def test_an_expired_command_has_no_response_in_its_payload(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:05Z")
    served.clock.advance(6)
    await served.status(command_id)
    payload = (await served.client.get(f"/v1/commands/{command_id}/payload")).ok()
    assert set(payload) == {"commandId", "params"}
