"""How functions are named in the API, and what a name stands for now."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.errors import ApiError
from router.api.names import Here, Reference, is_version, missing, parse, resolve
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import LATEST, Alias, Code, Function, Version
from tests.fakes.store import MemoryStore

HERE = Here("us-east-1", "000000000000")
ARN = "arn:aws:lambda:us-east-1:000000000000:function:orders"


def refused(text: str, qualifier: str | None = None, *, is_read: bool = False, is_new: bool = False) -> ApiError:
    with pytest.raises(ApiError) as raised:
        parse(text, HERE, qualifier, is_read=is_read, is_new=is_new)
    return raised.value


class TestForms:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("orders", Reference("orders")),
            ("orders:3", Reference("orders", "3")),
            ("orders:live", Reference("orders", "live")),
            ("orders:$LATEST", Reference("orders", LATEST)),
            ("function:orders", Reference("orders")),
            ("function:orders:live", Reference("orders", "live")),
            ("000000000000:function:orders", Reference("orders")),
            ("000000000000:function:orders:live", Reference("orders", "live")),
            ("us-east-1:000000000000:function:orders", Reference("orders")),
            (ARN, Reference("orders", is_arn=True)),
            (f"{ARN}:live", Reference("orders", "live", is_arn=True)),
            (f"{ARN}:$LATEST", Reference("orders", LATEST, is_arn=True)),
        ],
    )
    def test_every_form_names_the_same_function(self, text: str, expected: Reference) -> None:
        assert parse(text, HERE) == expected

    def test_the_qualifier_may_come_beside_the_name(self) -> None:
        assert parse("orders", HERE, "live") == Reference("orders", "live")
        assert parse("orders:live", HERE, "live") == Reference("orders", "live")

    def test_an_arn_of_our_own_is_read_whatever_our_region_is_called(self) -> None:
        here = Here("local", "000000000000")
        assert parse(here.function("orders", "3"), here) == Reference("orders", "3", is_arn=True)

    @given(
        st.from_regex(r"[a-zA-Z0-9-_]{1,64}", fullmatch=True),
        st.none() | st.just(LATEST) | st.from_regex(r"[a-zA-Z0-9-_]{1,128}", fullmatch=True),
    )
    def test_an_arn_that_is_made_is_read_back(self, name: str, qualifier: str | None) -> None:
        text = HERE.function(name, qualifier)
        if len(text) <= 256:
            assert parse(text, HERE) == Reference(name, qualifier, is_arn=True)

    @given(st.text())
    def test_whatever_comes_is_read_or_refused(self, text: str) -> None:
        try:
            found = parse(text, HERE).name
        except ApiError as error:
            found = error.code
        assert found in {
            *re.split(":", text),
            "ValidationException",
            "AccessDeniedException",
            "ResourceNotFoundException",
        }

    @pytest.mark.parametrize(
        ("region", "partition"), [("eu-central-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
    )
    def test_the_partition_follows_from_the_region(self, region: str, partition: str) -> None:
        assert Here(region, "000000000000").mapping("u") == (
            f"arn:{partition}:lambda:{region}:000000000000:event-source-mapping:u"
        )


class TestRefusals:
    def test_what_is_no_name_breaks_the_constraint_of_the_operation(self) -> None:
        error = refused("invalid:function:name")
        assert error.code == "ValidationException"
        assert str(error) == (
            "1 validation error detected: Value 'invalid:function:name' at 'functionName' failed to satisfy "
            r"constraint: Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:)?"
            r"((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
            r"([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
        )
        assert r"([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?" in str(refused("or ders", is_read=True))

    @pytest.mark.parametrize("text", ["", "a b", "orders:", ":live", "orders:a:b", "orders\n", "ördérs", "a/b"])
    def test_there_are_no_other_forms(self, text: str) -> None:
        assert refused(text).code == "ValidationException"

    def test_lengths(self) -> None:
        assert parse("a" * 64, HERE, is_new=True).name == "a" * 64
        long = refused("a" * 65, is_new=True)
        assert long.code == "InvalidParameterValueException"
        assert str(long).endswith("failed to satisfy constraint: Member must have length less than or equal to 64")
        long = refused(ARN + "s" * 140, is_new=True)
        assert long.code == "ValidationException"
        assert str(long).endswith("Member must have length less than or equal to 140")
        assert "less than or equal to 64" in str(refused(ARN + "s" * 65, is_new=True))
        assert parse(ARN[: -len("orders")] + "s" * 64, HERE, is_new=True).name == "s" * 64
        assert parse("s" * 65, HERE).name == "s" * 65, "only what is made anew is held to it"
        assert "less than or equal to 256" in str(refused("a" * 257))

    def test_another_account_or_region_is_not_reached(self) -> None:
        assert refused("111111111111:function:orders").status == 403
        assert refused(ARN.replace("000000000000", "111111111111")).status == 403
        assert refused("eu-west-1:000000000000:function:orders").status == 404
        error = refused(ARN.replace("us-east-1", "eu-west-1"))
        assert (error.code, error.status) == ("ResourceNotFoundException", 404)
        assert str(error) == "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"

    def test_a_qualifier_that_contradicts_the_name(self) -> None:
        error = refused("orders:live", "3")
        assert error.code == "InvalidParameterValueException"
        assert str(error) == "The derived qualifier from the function name does not match the specified qualifier."

    def test_a_qualifier_of_other_characters(self) -> None:
        assert str(refused("orders", "a?")) == (
            "1 validation error detected: Value 'a?' at 'qualifier' failed to satisfy constraint: Member must satisfy "
            r"regular expression pattern: \$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+"
        )
        assert str(refused("", "a" * 129)).startswith("3 validation errors detected: ")


class TestVersions:
    @pytest.mark.parametrize(
        ("text", "expected"), [("12", True), ("1a", False), (LATEST, False), ("", False), ("٣", False)]
    )
    def test_a_number_is_no_alias(self, text: str, *, expected: bool) -> None:
        assert is_version(text) is expected


def version(number: str) -> Version:
    return Version(
        number=number, runtime="python3.12", handler="a.b", role="arn:aws:iam::000000000000:role/r", code=Code()
    )


FUNCTION = Function(
    name="orders",
    latest=version(LATEST),
    versions={"1": version("1"), "2": version("2")},
    aliases={
        "live": Alias(name="live", version="2"),
        "split": Alias(name="split", version="1", weights={"2": 0.25}),
        "dangling": Alias(name="dangling", version="7"),
    },
)


class TestResolving:
    @pytest.fixture
    def catalogue(self) -> Catalogue:
        catalogue = Catalogue(MemoryStore())
        catalogue.show_file({"orders": FUNCTION}, {})
        return catalogue

    @pytest.mark.parametrize(
        ("qualifier", "expected"),
        [
            (None, {LATEST: 1.0}),
            (LATEST, {LATEST: 1.0}),
            ("1", {"1": 1.0}),
            ("live", {"2": 1.0}),
            ("split", {"1": 0.75, "2": 0.25}),
        ],
    )
    def test_a_reference_stands_for_versions(
        self, catalogue: Catalogue, qualifier: str | None, expected: dict[str, float]
    ) -> None:
        resolved = resolve(catalogue, Reference("orders", qualifier), HERE)
        assert resolved.function is FUNCTION
        assert resolved.versions == expected
        assert resolved.arn == (ARN if qualifier is None else f"{ARN}:{qualifier}")

    @pytest.mark.parametrize("reference", ["nobody", "orders:3", "orders:none", "orders:dangling"])
    def test_what_is_not_there_is_not_found_under_its_arn(self, catalogue: Catalogue, reference: str) -> None:
        with pytest.raises(ApiError) as raised:
            resolve(catalogue, parse(reference, HERE), HERE)
        assert raised.value.document == {
            "Type": "User",
            "Message": f"Function not found: arn:aws:lambda:us-east-1:000000000000:function:{reference}",
        }
        assert str(raised.value) == str(missing(HERE.function(*reference.split(":"))))

    def test_shares_of_the_draws_go_to_each_version(self, catalogue: Catalogue) -> None:
        resolved = resolve(catalogue, Reference("orders", "split"), HERE)
        drawn = [resolved.version(number / 100) for number in range(100)]
        assert drawn.count("1") == 75
        assert drawn.count("2") == 25
