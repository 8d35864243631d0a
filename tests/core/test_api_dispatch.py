"""Which operation a request means."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.dispatch import find, query
from router.api.operations import OPERATIONS

ARN = "arn:aws:lambda:us-east-1:000000000000:function:orders:live"


def filled(operation, text="orders"):
    """The path of an operation as a client writes it, and what its parts are."""
    segments, parts = [], {}
    for segment in operation.path.split("/"):
        if segment.startswith("{"):
            name = segment.strip("{+}")
            parts[name] = text
        segments.append(quote(text, safe="") if segment.startswith("{") else segment)
    return "/".join(segments), parts


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
@pytest.mark.parametrize("end", ["", "/"])
def test_every_operation_is_found_by_its_method_and_path(operation, end):
    path, parts = filled(operation, ARN)
    assert find(operation.method, path + end) == (operation, parts)


def test_no_two_operations_share_method_and_path():
    assert len({(each.method, filled(each)[0]) for each in OPERATIONS}) == len(OPERATIONS)


def test_an_arn_may_come_with_or_without_escapes():
    for written in (ARN, quote(ARN, safe=""), quote(ARN)):
        assert find("GET", f"/2017-03-31/tags/{written}")[1] == {"Resource": ARN}
        assert find("GET", f"/2015-03-31/functions/{written}")[1] == {"FunctionName": ARN}


def test_an_escaped_slash_parts_nothing():
    found = find("GET", "/2015-03-31/functions/a%2Fconfiguration")
    assert (found[0].name, found[1]) == ("GetFunction", {"FunctionName": "a/configuration"})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/2015-03-31"),
        ("GET", "/2015-03-31/functions//configuration"),
        ("GET", "/2015-03-31//functions"),
        ("GET", "/2015-03-31/functions/orders/nothing"),
        ("GET", "/2015-03-31/functions/orders/configuration/more"),
        ("PATCH", "/2015-03-31/functions"),
        ("GET", "/2015-03-31/functions/orders/invocations"),
        ("GET", "/2015-03-31/functions/%FF"),
        ("GET", "/2017-03-31/tags/"),
        ("GET", "/1999-01-01/functions"),
    ],
)
def test_everything_else_is_an_unknown_operation(method, path):
    assert find(method, path) is None


@given(st.sampled_from(["GET", "POST", "PUT", "DELETE"]), st.text("/%20ab{}+:.é", max_size=60))
def test_no_path_breaks_it(method, path):
    found = find(method, f"/2015-03-31/functions/{path}")
    assert found is None or found[0].method == method


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_a_query_comes_back_as_it_was(pairs):
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    read = query(text)
    assert [(name, value) for name in read for value in read[name]] == sorted(
        pairs, key=lambda pair: list(read).index(pair[0])
    )


@pytest.mark.parametrize("text", ["a=%FF", "&".join(f"a{number}=" for number in range(1000))])
def test_a_query_that_is_no_text_or_too_long_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        query(text)
