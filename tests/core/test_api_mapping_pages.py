"""Pages of mappings: everything once, whatever comes and goes."""

from hypothesis import given
from hypothesis import strategies as st

from router.api.mapping_pages import Wanted, page
from router.catalogue.records import Mapping

UUIDS = st.lists(st.uuids(version=4).map(str), unique=True, max_size=30)


def mapping(uuid: str, source: str = "arn:a") -> Mapping:
    return Mapping(uuid=uuid, function="orders", properties={"EventSourceArn": source}, name=uuid)


def walk(mappings: list[Mapping], wanted: Wanted, count: int) -> list[list[str]]:
    pages = []
    marker = None
    while True:
        found, marker = page(mappings, wanted, marker, count)
        pages.append([each.uuid for each in found])
        if marker is None:
            return pages


@given(UUIDS, st.integers(1, 12))
def test_each_is_told_once_and_pages_are_full(uuids: list[str], count: int) -> None:
    pages = walk([mapping(uuid) for uuid in uuids], Wanted(), count)
    assert [uuid for found in pages for uuid in found] == sorted(uuids)
    assert all(len(found) == count for found in pages[:-1])
    assert len(pages[-1]) <= count
    assert all(pages[1:]), "a marker leads to more"


@given(UUIDS, UUIDS, UUIDS, st.integers(1, 5))
def test_what_stays_is_told_once_while_others_come_and_go(
    stay: list[str], go: list[str], come: list[str], count: int
) -> None:
    before = [mapping(uuid) for uuid in {*stay, *go}]
    after = [mapping(uuid) for uuid in {*stay, *come}]
    found, marker = page(before, Wanted(), None, count)
    told = [each.uuid for each in found]
    while marker:
        found, marker = page(after, Wanted(), marker, count)
        told += [each.uuid for each in found]
    assert len(told) == len(set(told))
    assert set(stay) <= set(told) or len(before) <= count


@given(UUIDS, st.integers(1, 5), st.data())
def test_a_filter_is_as_if_the_others_were_not_there(uuids: list[str], count: int, data: st.DataObject) -> None:
    mappings = [mapping(uuid, data.draw(st.sampled_from(("arn:a", "arn:b")))) for uuid in uuids]
    fitting = [each for each in mappings if each.properties["EventSourceArn"] == "arn:b"]
    assert walk(mappings, Wanted("arn:b"), count) == walk(fitting, Wanted(), count)


@given(st.text())
def test_a_marker_that_nobody_gave_gives_no_items(marker: str) -> None:
    found, following = page([mapping("a")], Wanted(), marker, 10)
    assert following is None
    assert len(found) == (0 if marker else 1)
