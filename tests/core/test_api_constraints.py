"""Modelled constraints of requests, and AWS's texts for what breaks them."""

from typing import Any

import pytest

from router.api.constraints import Flag, Listed, Map, Number, Scalar, Structure, Text, check
from router.api.errors import ApiError

MOST, LEAST = "Member must have length less than or equal to", "Member must have length greater than or equal to"
MAX, MIN = "Member must have value less than or equal to", "Member must have value greater than or equal to"
PATTERN, NULL = "Member must satisfy regular expression pattern:", "Member must not be null"
SHAPE = Structure(
    {
        "BatchSize": Number(1, 10000),
        "StartingPosition": Text(words=("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")),
        "Enabled": Flag(),
        "Topics": Listed(Text(1, 249, r"[^.]([a-zA-Z0-9\-_.]+)"), 1, 1),
        "FunctionResponseTypes": Listed(Text(words=("ReportBatchItemFailures",)), 0, 1),
        "ScalingConfig": Structure({"MaximumConcurrency": Number(2)}),
        "SourceAccessConfigurations": Listed(
            Structure({"Type": Text(words=("BASIC_AUTH",)), "URI": Text(1, 200)}), 0, 23
        ),
        "Weights": Map(Text(1, 1024, "[0-9]+"), Number(0.0, 1.0, is_float=True)),
        "Variables": Map(Text(pattern="[a-zA-Z]([a-zA-Z0-9_])+"), Text(), is_secret=True),
        "Tags": Map(Text(1, 128), Text(0, 256), high=2),
        "Role": Text(),
    },
    required=("Role",),
)


def refusal(**members: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        check(SHAPE, {"Role": "r", **members})
    return raised.value


def said(**members: Any) -> str:
    error = refusal(**members)
    assert error.code == "ValidationException"
    assert error.document == {"message": str(error)}
    return str(error)


class TestTexts:
    @pytest.mark.parametrize(
        ("members", "expected"),
        [
            ({"BatchSize": 10001}, f"Value '10001' at 'batchSize' @ {MAX} 10000"),
            ({"BatchSize": 0}, f"Value '0' at 'batchSize' @ {MIN} 1"),
            (
                {"StartingPosition": "HERE"},
                (
                    "Value 'HERE' at 'startingPosition' @ "
                    "Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
                ),
            ),
            (
                {"Topics": ["one", "two"]},
                f"Value '[one, two]' at 'topics' @ {MOST} 1",
            ),
            (
                {"Topics": ["bad/topic"]},
                (
                    "Value '[bad/topic]' at 'topics' @ Member must satisfy constraint: "
                    f"[{MOST} 249, {LEAST} 1, "
                    rf"{PATTERN} [^.]([a-zA-Z0-9\-_.]+), {NULL}]"
                ),
            ),
            (
                {"FunctionResponseTypes": ["Other"]},
                (
                    "Value '[Other]' at 'functionResponseTypes' @ Member must satisfy constraint: "
                    f"[Member must satisfy enum value set: [ReportBatchItemFailures], {NULL}]"
                ),
            ),
            (
                {"ScalingConfig": {"MaximumConcurrency": 1}},
                f"Value '1' at 'scalingConfig.maximumConcurrency' @ {MIN} 2",
            ),
            (
                {"SourceAccessConfigurations": [{"Type": "BASIC_AUTH"}, {"Type": "BAD"}]},
                (
                    "Value 'BAD' at 'sourceAccessConfigurations.2.member.type' @ "
                    "Member must satisfy enum value set: [BASIC_AUTH]"
                ),
            ),
            (
                {"Weights": {"2": 2.0}},
                (f"Value '{{2=2.0}}' at 'weights' @ Map value must satisfy constraint: [{MAX} 1.0, {MIN} 0.0, {NULL}]"),
            ),
            (
                {"Weights": {"$LATEST": 0.5}},
                (
                    "Value '{$LATEST=0.5}' at 'weights' @ Map keys must satisfy constraint: "
                    f"[{MOST} 1024, {LEAST} 1, "
                    f"{PATTERN} [0-9]+]"
                ),
            ),
            (
                {"Tags": {"a": "", "b": "", "c": ""}},
                f"Value '{{a=, b=, c=}}' at 'tags' @ {MOST} 2",
            ),
            ({"Role": None}, f"Value null at 'role' @ {NULL}"),
        ],
    )
    def test_what_breaks_a_constraint_is_said_as_the_service_says_it(
        self, members: dict[str, Any], expected: str
    ) -> None:
        text = expected.replace(" @ ", " failed to satisfy constraint: ")
        assert said(**members) == f"1 validation error detected: {text}"

    def test_all_that_is_broken_is_said_at_once(self) -> None:
        assert said(BatchSize=0, Topics=[]) == (
            "2 validation errors detected: "
            f"Value '0' at 'batchSize' failed to satisfy constraint: {MIN} 1; "
            f"Value '[]' at 'topics' failed to satisfy constraint: {LEAST} 1"
        )

    def test_values_of_secrets_are_not_said(self) -> None:
        text = said(Variables={"1A": "s3cret"})
        assert text == (
            "1 validation error detected: Value at 'variables' failed to satisfy constraint: "
            f"Map keys must satisfy constraint: [{PATTERN} [a-zA-Z]([a-zA-Z0-9_])+]"
        )


class TestTypes:
    @pytest.mark.parametrize(
        ("members", "expected"),
        [
            ({"BatchSize": "10"}, "STRING_VALUE can not be converted to an Integer"),
            ({"BatchSize": True}, "TRUE_VALUE can not be converted to an Integer"),
            ({"BatchSize": 1.5}, "NUMBER_VALUE can not be converted to an Integer"),
            ({"BatchSize": 2**31}, "NUMBER_VALUE can not be converted to an Integer"),
            ({"ScalingConfig": {"MaximumConcurrency": -(2**70)}}, "NUMBER_VALUE can not be converted to an Integer"),
            ({"Enabled": 1}, "NUMBER_VALUE can not be converted to a Boolean"),
            ({"Role": ["r"]}, "START_ARRAY can not be converted to a String"),
            ({"Role": False}, "FALSE_VALUE can not be converted to a String"),
            ({"Topics": "orders"}, "STRING_VALUE can not be converted to a List"),
            ({"Topics": [1]}, "NUMBER_VALUE can not be converted to a String"),
            ({"Tags": []}, "START_ARRAY can not be converted to a Map"),
            ({"ScalingConfig": []}, "START_ARRAY can not be converted to an Object"),
            ({"SourceAccessConfigurations": ["a"]}, "STRING_VALUE can not be converted to an Object"),
            ({"Weights": {"1": "a"}}, "STRING_VALUE can not be converted to a Double"),
        ],
    )
    def test_a_value_of_another_type_is_refused_first(self, members: dict[str, Any], expected: str) -> None:
        error = refusal(**members)
        assert (error.code, error.status, str(error)) == ("SerializationException", 400, expected)


class TestAccepted:
    def test_what_holds_passes_and_what_is_unknown_is_ignored(self) -> None:
        check(
            SHAPE,
            {
                "Role": "r",
                "BatchSize": 10000,
                "Topics": ["orders"],
                "Weights": {"2": 1},
                "Enabled": False,
                "Tags": {},
                "ScalingConfig": {},
                "SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": "u"}, None],
                "Unheard": object(),
            },
        )

    def test_null_is_as_if_it_were_absent(self) -> None:
        check(SHAPE, {"Role": "r", "BatchSize": None, "Topics": None, "Tags": None})

    def test_null_within_a_list_is_not(self) -> None:
        assert f"{NULL}]" in said(FunctionResponseTypes=[None])

    @pytest.mark.parametrize(
        ("shape", "expected"),
        [(Flag(), []), (Number(1), [f"{MIN} 1"]), (Text(), [])],
    )
    def test_constraints_that_are_not_there_are_not_listed(self, shape: Scalar, expected: list[str]) -> None:
        assert shape.constraints() == expected
