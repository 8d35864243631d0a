"""Functions' code as objects of S3, from where the `aws` block says that AWS is."""

from __future__ import annotations

from typing import Any, Final

from connectors.aws import aws_errors, s3_client
from router.errors import CodeRefused, SourceUnavailable

#: Codes by which S3 says that the object is not to be had; others mean that it is not reached as it should be.
_REFUSALS: Final = frozenset(
    {
        "AccessDenied",
        "InvalidArgument",
        "InvalidBucketName",
        "InvalidObjectState",
        "KeyTooLongError",
        "MethodNotAllowed",
        "NoSuchBucket",
        "NoSuchKey",
        "NoSuchVersion",
        "PermanentRedirect",
    }
)


class S3Code:
    """Fetches code; connects anew each time, for that is seldom."""

    def __init__(self, endpoint_url: str | None, region: str | None) -> None:
        """Make it; nothing is connected to yet."""
        self._endpoint_url, self._region = endpoint_url, region

    async def fetch(self, bucket: str, key: str, version: str | None, limit_bytes: int) -> bytes:
        """Give the content of an object, of this version or the present one. Raises CodeRefused, SourceUnavailable."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 - see connectors.aws

        more: dict[str, Any] = {"VersionId": version} if version else {}
        with aws_errors(SourceUnavailable, f"code s3://{bucket}/{key}"):
            async with s3_client(self._endpoint_url, self._region) as client:
                try:
                    answer = await client.get_object(Bucket=bucket, Key=key, **more)
                except ClientError as error:
                    _refuse(error.response["Error"].get("Code", ""), error.response["Error"].get("Message", ""))
                    raise
                if answer["ContentLength"] > limit_bytes:
                    raise CodeRefused(f"Unzipped size must be smaller than {limit_bytes} bytes")
                async with answer["Body"] as body:
                    content: bytes = await body.read()
                    return content


def _refuse(code: str, text: str) -> None:
    """Say in the Lambda API's words that S3 does not give the object, if that is what it says."""
    if code in _REFUSALS:
        raise CodeRefused(f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {text}")
