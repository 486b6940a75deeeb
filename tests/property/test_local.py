"""What holds for every hall of fake nodes, every kernel table and every published list of checksums."""

import ipaddress
import struct
from collections import Counter, defaultdict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trimtab.api import keys
from trimtab.local import fakes, ports
from trimtab.local.releases import listed_checksum
from trimtab.local.sources import Unavailable

SUMS = st.text("0123456789abcdef", min_size=64, max_size=64)
FILES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)


@given(st.integers(1, 500))
def test_no_rack_row_or_aisle_has_more_than_its_share_and_each_is_inside_one_of_the_next(count: int) -> None:
    places = [fakes.place(index) for index in range(count)]
    assert max(Counter(place[keys.RACK] for place in places).values()) <= fakes.NODES_PER_RACK
    for inner, outer, share in (
        (keys.RACK, keys.ROW, fakes.RACKS_PER_ROW),
        (keys.ROW, keys.AISLE, fakes.ROWS_PER_AISLE),
    ):
        around: dict[str, set[str]] = defaultdict(set)
        inside: dict[str, set[str]] = defaultdict(set)
        for place in places:
            around[place[inner]].add(place[outer])
            inside[place[outer]].add(place[inner])
        assert all(len(found) == 1 for found in around.values())
        assert all(len(found) <= share for found in inside.values())


@given(st.integers(1, 300), st.lists(FILES, min_size=1, max_size=4, unique=True))
def test_a_rack_has_one_kind_of_accelerator(count: int, accelerators: list[str]) -> None:
    kinds: dict[str, set[str]] = defaultdict(set)
    for node in fakes.nodes(count, accelerators, now=""):
        labels = node["metadata"]["labels"]
        kinds[labels[keys.RACK]].add(labels[keys.ACCELERATOR])
    assert all(len(found) == 1 for found in kinds.values())


@given(st.ip_addresses())
def test_the_kernels_way_of_writing_addresses_is_read_back(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    words = struct.iter_unpack(">I", address.packed)
    written = "".join(struct.pack("<I", word).hex().upper() for (word,) in words)
    assert ports._address(written) == str(address)


@given(st.dictionaries(FILES, SUMS, min_size=2), st.sampled_from(["  ", " *", "\t", "  ./dist/"]), st.data())
def test_each_file_of_a_published_list_gets_its_own_sum(sums: dict[str, str], gap: str, data: st.DataObject) -> None:
    text = "\n".join(f"{sum_}{gap}{file}" for file, sum_ in sums.items())
    file = data.draw(st.sampled_from(sorted(sums)))
    assert listed_checksum(text, file) == sums[file]


@given(st.dictionaries(FILES, SUMS, min_size=2), FILES)
def test_a_file_that_a_list_does_not_name_gets_no_sum(sums: dict[str, str], file: str) -> None:
    sums.pop(file, None)
    assume(len(sums) > 1)  # a list of one bare sum needs no name
    text = "\n".join(f"{sum_}  {name}" for name, sum_ in sums.items())
    with pytest.raises(Unavailable):
        listed_checksum(text, file)


@given(st.integers(0, 2**40), st.integers(1, 12))
def test_wherever_the_search_for_ports_begins_it_finds_different_ones_in_the_range(begin: int, count: int) -> None:
    window = range(26000, 26040)
    found = ports.free(count, {26003, 26004}, window, first_choice=begin)
    assert len(set(found)) == count
    assert set(found) <= set(window) - {26003, 26004}
