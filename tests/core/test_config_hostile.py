"""Whatever the file holds, the answer is a configuration or a list of mistakes, and soon."""

import string

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.mistakes import LISTED_COUNT
from config.schema import Root
from tests.core.configured import RIGHT, mistakes

MAPPING = Root.declared()["event_source_mappings"].kind.kind.block
AWS = {*MAPPING.spellings(), *MAPPING.FORMS, *MAPPING.IDLE, "Endpoints", "Destination", "Type", "Variables"}
NAMES = sorted(
    {
        *Root.declared(),
        *AWS,
        "kafka",
        "kinesis",
        "dynamodb",
        "sqs",
        "s3",
        "on_failure",
        "stream",
        "table",
        "filters",
        "pattern",
        "<<",
        "orders",
        "f",
    }
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(
        [
            "TRIM_HORIZON",
            "127.0.0.1:1",
            "arn:aws:sqs:a:1:b",
            "arn:aws:kinesis:a:1:stream/b/consumer/c:1",
            "arn:aws:dynamodb:a:1:table/abc/stream/1",
            "a.b",
            ".",
            "5s",
            "1GiB",
            "${env:A}",
            "${env:",
            "$${",
            "${file:/}",
        ]
    ),
    st.text(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def flow(value):
    """Write a value as YAML, texts sometimes without quotes, as a careless hand would."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(name)}: {flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str):
        return value if len(value) % 2 else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return {None: "null", True: "true", False: "false"}.get(value, str(value))


def one_line_each(lines):
    assert all(line.startswith("headrace.yaml") and line.isprintable() for line in lines), lines


@quick
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path, content):
    lines = mistakes(tmp_path, content)
    one_line_each(lines)


@quick
@given(st.text(alphabet="{}[]:,-?&*!|>'\"%@`#$\\ \n\tax01~.<" + string.digits[:2], max_size=80))
def test_any_punctuation(tmp_path, text):
    lines = mistakes(tmp_path, text)
    one_line_each(lines)


@quick
@given(st.dictionaries(st.sampled_from(NAMES), values, max_size=6))
def test_any_values_at_the_top(tmp_path, document):
    text = flow(document).encode(errors="surrogatepass")
    lines = mistakes(tmp_path, text, A="1")
    one_line_each(lines)


@quick
@given(st.sampled_from(sorted(AWS - {"function", "source"})), values)
def test_any_value_in_a_mapping(tmp_path, name, value):
    for source in (RIGHT, RIGHT.replace('kafka: {bootstrap_servers: "127.0.0.1:9092", topic', "kinesis: {stream")):
        text = f"{source}    {name}: {flow(value)}\n".encode(errors="surrogatepass")
        one_line_each(mistakes(tmp_path, text, A="1"))


@quick
@given(st.sampled_from(["kinesis", "dynamodb"]), values)
def test_any_value_in_a_stream(tmp_path, kind, value):
    text = RIGHT[: RIGHT.index("    source")] + f"    source: {{{kind}: {flow(value)}}}\n"
    one_line_each(mistakes(tmp_path, text.encode(errors="surrogatepass"), A="1"))


def test_aliases_that_multiply(tmp_path):
    lines = ["a: &a [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    assert mistakes(tmp_path, "\n".join(lines)) == [
        "headrace.yaml:5: e[7]: more than 100000 values, aliases counted each time"
    ]


def test_nesting_without_end(tmp_path):
    for opening in "[", "{a: ", "- ", "? ":
        (line,) = mistakes(tmp_path, opening * 10_000)
        assert "headrace.yaml:1" in line


def test_mistakes_without_end(tmp_path):
    lines = mistakes(tmp_path, RIGHT + "".join(f"timeout{number}: 1\n" for number in range(2_000)))
    assert len(lines) == LISTED_COUNT + 1
    assert lines[-1] == "headrace.yaml: more than 100 mistakes, not listed"


def test_a_reference_to_a_file_without_end(tmp_path):
    assert mistakes(tmp_path, f"{RIGHT}log_level: ${{file:/dev/zero}}\n") == [
        'headrace.yaml:7: log_level: file "/dev/zero" is not a file'
    ]
