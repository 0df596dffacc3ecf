"""Random bytes from a pool."""

from __future__ import annotations

import os

from arc_es import randomness
from arc_es.randomness import POOL_BYTES, token_bytes, uuid4


def test_nothing_is_handed_out_twice() -> None:
    taken = [token_bytes(16) for _ in range(3 * POOL_BYTES // 16)] + [uuid4().bytes for _ in range(500)]
    assert len(set(taken)) == len(taken)
    assert {len(one) for one in taken} == {16}
    assert len(token_bytes(POOL_BYTES)) == POOL_BYTES


def test_an_id_says_that_it_is_random() -> None:
    assert {(uuid4().version, uuid4().variant) for _ in range(100)} == {(4, "specified in RFC 4122")}


def test_a_forked_process_goes_on_with_other_bytes() -> None:
    token_bytes(1)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, randomness.token_bytes(16))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 16) != token_bytes(16)
    os.close(reader)
    os.close(writer)
