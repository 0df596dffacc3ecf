"""Roots and proofs against the recursive definitions of RFC 6962, and against its known answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es.domain.merkle import (
    EMPTY_ROOT,
    CompactRange,
    NodeAt,
    consistency_proof,
    fold_perfect,
    includes,
    inclusion_proof,
    is_consistent,
    leaf_data,
    leaf_hash,
    node_hash,
    root_at,
    root_of,
)

# The inputs and the roots of certificate-transparency's own tests of RFC 6962.
INPUTS = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 2.1, word for word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def naive_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return [*naive_path(index, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(index - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(size: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 2.1.2."""
    if size == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = split(len(leaves))
    if size <= k:
        return [*naive_subproof(size, leaves[:k], whole=whole), naive_root(leaves[k:])]
    return [*naive_subproof(size - k, leaves[k:], whole=False), naive_root(leaves[:k])]


def some(count: int) -> list[bytes]:
    return [leaf_hash(leaf_data(at, "arc.event.command.d.c", "ab")) for at in range(count)]


def node_of(leaves: Sequence[bytes]) -> NodeAt:
    return lambda level, index: fold_perfect(leaves[index << level : (index + 1) << level])


def flipped(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8 % len(raw)] ^= 1 << bit % 8
    return bytes(changed)


def test_the_known_roots() -> None:
    tree = CompactRange()
    assert tree.root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for raw, root in zip(INPUTS, ROOTS, strict=True):
        tree.append(leaf_hash(raw))
        assert tree.root().hex() == root


def test_what_a_leaf_is() -> None:
    assert leaf_data(17, "arc.event.token.x", "00ff") == b"17\narc.event.token.x\n00ff\n"


@pytest.mark.parametrize("size", range(70))
def test_every_root_and_proof_is_that_of_the_definition(size: int) -> None:
    leaves = some(size)
    root, node = naive_root(leaves), node_of(leaves)
    assert root_of(leaves) == root == root_at(size, node)
    for index in range(size):
        path = inclusion_proof(index, size, node)
        assert path == naive_path(index, leaves)
        assert includes(leaves[index], index, size, root, path)
        assert not includes(leaves[index], index + 1, size, root, path)
        assert not includes(leaves[index], index, size, root, [*path, root])
    for old in range(size + 1):
        path = consistency_proof(old, size, node)
        old_root = naive_root(leaves[:old])
        assert path == (naive_subproof(old, leaves, whole=True) if old else [])
        assert is_consistent(old, old_root, size, root, path)
        assert not is_consistent(old, old_root, size, root, [*path, root])


@given(st.integers(2, 300), st.data())
def test_a_changed_bit_proves_nothing(size: int, data: st.DataObject) -> None:
    leaves = some(size)
    root, node = root_of(leaves), node_of(leaves)
    index, bit = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 255))
    path = inclusion_proof(index, size, node)
    step = data.draw(st.integers(0, len(path) - 1))
    wrong = [*path[:step], flipped(path[step], bit), *path[step + 1 :]]
    assert not includes(leaves[index], index, size, root, wrong)
    assert not includes(flipped(leaves[index], bit), index, size, root, path)
    assert not includes(leaves[index], index, size, flipped(root, bit), path)
    assert not includes(leaves[index], index, size, root, path[:-1])


@given(st.integers(2, 300), st.data())
def test_a_changed_bit_shows_no_consistency(size: int, data: st.DataObject) -> None:
    leaves = some(size)
    root, node = root_of(leaves), node_of(leaves)
    old, bit = data.draw(st.integers(1, size - 1)), data.draw(st.integers(0, 255))
    old_root, path = root_of(leaves[:old]), consistency_proof(old, size, node)
    step = data.draw(st.integers(0, len(path) - 1))
    wrong = [*path[:step], flipped(path[step], bit), *path[step + 1 :]]
    assert not is_consistent(old, old_root, size, root, wrong)
    assert not is_consistent(old, flipped(old_root, bit), size, root, path)
    assert not is_consistent(old, old_root, size, flipped(root, bit), path)
    assert not is_consistent(old, old_root, size, root, path[:-1])


@given(st.integers(1, 200), st.integers(1, 200))
def test_another_past_is_never_consistent(old: int, more: int) -> None:
    leaves = some(old + more)
    other = [*leaves[: old - 1], leaf_hash(b"another"), *leaves[old:]]
    path = consistency_proof(old, len(other), node_of(other))
    assert not is_consistent(old, root_of(leaves[:old]), len(other), root_of(other), path)


def test_there_is_no_proof_of_what_is_not_there() -> None:
    node = node_of(some(3))
    with pytest.raises(ValueError, match="no leaf 3"):
        inclusion_proof(3, 3, node)
    with pytest.raises(ValueError, match="does not begin"):
        consistency_proof(4, 3, node)
    assert not includes(EMPTY_ROOT, 0, 0, EMPTY_ROOT, [])
    assert not is_consistent(3, EMPTY_ROOT, 2, EMPTY_ROOT, [])
    assert not is_consistent(0, ROOTS[0].encode(), 2, EMPTY_ROOT, [])
