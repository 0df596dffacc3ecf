"""Notes are those that other tools write and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es.proof.notes import (
    Checkpoint,
    NoteError,
    NoteSigner,
    announced_key,
    key_note,
    parse_checkpoint,
    parse_note,
    parse_verifier,
    sign,
)

# Made by the first implementation, golang.org/x/mod/sumdb/note; from its documentation.
KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
LINE = (
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The examples in the two specifications; their public keys are not in them.
POEM = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "\u2014 quasimodo.example/salvatore"
    " NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)
SOFA = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa"
    " Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)
# RFC 8032, 7.1, test 1
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"

OURS = NoteSigner("arc-es/test", SEED)
NEXT = NoteSigner("arc-es/test", bytes(32))


def test_a_note_of_the_first_implementation_verifies() -> None:
    key = parse_verifier(KEY)
    assert str(key) == KEY
    note = parse_note(f"{TEXT}\n{LINE}")
    assert note.text == TEXT
    assert note.signed_by([key]) == [key]
    with pytest.raises(NoteError, match="is wrong"):
        parse_note(f"{TEXT.replace('your', 'my')}\n{LINE}").signed_by([key])


def test_the_examples_of_the_specifications_are_read() -> None:
    poem = parse_note(POEM)
    assert poem.text.endswith(":\n\ned è subito sera.\n")
    assert poem.signatures[0].key_id.hex() == "367ba04b"
    checkpoint = parse_checkpoint(parse_note(SOFA))
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.text == parse_note(SOFA).text


def test_the_public_key_is_that_of_rfc_8032() -> None:
    assert OURS.verifier.key.hex() == PUBLIC
    assert "seed" not in repr(OURS)


def test_what_is_signed_comes_back() -> None:
    checkpoint = Checkpoint(OURS.name, 7, bytes(32))
    note = parse_note(sign(checkpoint.text, OURS, NEXT))
    assert parse_checkpoint(note) == checkpoint
    assert note.signed_by([OURS.verifier]) == [OURS.verifier]
    assert note.signed_by([NEXT.verifier, OURS.verifier]) == [OURS.verifier, NEXT.verifier]
    assert note.signed_by([parse_verifier(KEY)]) == []


def test_extension_lines_of_others_are_ignored() -> None:
    text = Checkpoint("log", 7, bytes(32)).text + "an extension\n"
    assert parse_checkpoint(parse_note(sign(text, OURS))).size == 7


@given(st.integers(0), st.integers(1, 255))
def test_no_byte_of_a_note_can_be_changed(at: int, change: int) -> None:
    raw = bytearray(sign(Checkpoint(OURS.name, 7, bytes(32)).text, OURS).encode())
    raw[at % len(raw)] ^= change
    try:
        signers = parse_note(raw.decode()).signed_by([OURS.verifier])
    except (NoteError, UnicodeDecodeError):
        return
    assert signers == []


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text\n",
        "text\n\n",
        "\n\n" + LINE,
        f"{TEXT}\n{LINE[:-1]}",
        f"{TEXT}\n- x AAAAAAAA\n",
        f"{TEXT}\n\u2014 x\n",
        f"te\txt\n\n{LINE}",
        f"{TEXT}\n\u2014 x AAAA\n",
        f"{TEXT}\n\u2014 x AAAAAAB=\n",
        f"{TEXT}\n" + 65 * LINE,
    ],
)
def test_what_is_no_note(note: str) -> None:
    with pytest.raises(NoteError):
        parse_note(note)


@pytest.mark.parametrize("text", ["log\n1\n", "log\n01\nAAAA\n", "log\n1\nAAAA\n", "log\n-1\nAAAA\n", "log\n\nx\ny\n"])
def test_what_is_no_checkpoint(text: str) -> None:
    with pytest.raises(NoteError):
        parse_checkpoint(parse_note(sign(text, OURS)))


@pytest.mark.parametrize("key", ["", "a", "a+b", KEY + "=", KEY.replace("c74f", "c74e"), KEY.replace("+ARpc", "+AhpC")])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(NoteError):
        parse_verifier(key)


def test_an_old_key_vouches_for_a_new_one() -> None:
    first, second = key_note(OURS, None), key_note(NEXT, OURS)
    assert announced_key(first, []) == (OURS.verifier, [])
    assert announced_key(second, [OURS.verifier]) == (NEXT.verifier, [OURS.verifier])
    for wrong in (second.replace("/key", "/kez"), first.replace("arc-es/test/key", "arc-es/other/key"), TEXT + LINE):
        with pytest.raises(NoteError):
            announced_key(wrong, [OURS.verifier])
    with pytest.raises(NoteError):
        announced_key(second, [])  # who else has signed?
