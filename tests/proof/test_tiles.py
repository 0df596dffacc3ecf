"""Files of hashes give the same roots and proofs as the leaves themselves, and survive being cut off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es.domain.merkle import consistency_proof, includes, inclusion_proof, is_consistent, leaf_hash, root_of
from arc_es.proof.tiles import TILE, Tiles, in_directory

LEAVES = [(3 * number + 1, leaf_hash(str(number).encode())) for number in range(3 * TILE * TILE // 2)]
HASHES = [leaf for _, leaf in LEAVES]


@pytest.fixture(scope="module")
def full() -> Tiles:
    tiles = Tiles()
    for start in range(0, len(LEAVES), 1_000):
        tiles.extend(LEAVES[start : start + 1_000])
    return tiles


SIZES = [1, 2, 255, 256, 257, 511, 512, 1_000, TILE * TILE - 1, TILE * TILE, TILE * TILE + 1, len(LEAVES)]


@pytest.mark.parametrize("size", SIZES)
def test_roots_and_proofs(full: Tiles, size: int) -> None:
    root = root_of(HASHES[:size])
    assert full.root(size) == root
    for index in {0, 1, size // 2, size - 1} & set(range(size)):
        assert includes(HASHES[index], index, size, root, inclusion_proof(index, size, full.node))
        path = consistency_proof(index, size, full.node)
        assert is_consistent(index, full.root(index), size, root, path)


def test_there_is_no_root_over_more_than_there_is(full: Tiles) -> None:
    with pytest.raises(IndexError):
        full.root(len(LEAVES) + 1)


@given(st.integers(0, len(LEAVES) - 1))
def test_a_position_leads_to_its_leaf(full: Tiles, index: int) -> None:
    position = LEAVES[index][0]
    assert full.position_of(index) == position
    assert full.index_of(position) == index
    assert full.index_of(position + 1) == index + 1


@given(st.lists(st.integers(0, 700), max_size=6), st.integers(0, 2_000))
def test_pieces_and_cuts_make_no_difference(pieces: list[int], cut: int) -> None:
    tiles, at = Tiles(), 0
    for piece in pieces:
        tiles.extend(LEAVES[at : at + piece])
        at += piece
    cut = min(cut, at)
    tiles.truncate(cut)
    assert (tiles.size, tiles.position) == (cut, LEAVES[cut - 1][0] if cut else 0)
    tiles.extend(LEAVES[cut : cut + 300])
    assert tiles.root(cut + 300) == root_of(HASHES[: cut + 300])
    tiles.close()


def test_what_is_on_disk_comes_back(tmp_path: Path) -> None:
    first = Tiles(in_directory(tmp_path / "tree"))
    first.extend(LEAVES[:1_000])
    first.sync()
    first.close()
    assert (tmp_path / "tree" / "level-0").stat().st_mode & 0o777 == 0o600
    again = Tiles(in_directory(tmp_path / "tree"))
    assert (again.size, again.root(1_000)) == (1_000, root_of(HASHES[:1_000]))
    again.close()


@pytest.mark.parametrize(("name", "size"), [("level-0", 999), ("positions", 999), ("level-8", 1_000)])
def test_a_file_that_was_cut_off_is_made_whole(tmp_path: Path, name: str, size: int) -> None:
    first = Tiles(in_directory(tmp_path))
    first.extend(LEAVES[:1_000])
    first.close()
    path = tmp_path / name
    os.truncate(path, path.stat().st_size - 5)
    again = Tiles(in_directory(tmp_path))
    assert (again.size, again.root(size)) == (size, root_of(HASHES[:size]))
    again.close()
