"""Runs inside LocalStack: hands every call of Lambda's API that reaches it to Headrace, also those of its own services.

LocalStack runs what is in /etc/localstack/init/ready.d/ once it is ready, in its own process. From then on S3
notifications, SNS subscriptions and rules of EventBridge that name a function invoke one of Headrace, and clients of
LocalStack's endpoint that ask for Lambda are answered by Headrace. See docs/push.md.

    HEADRACE_URL                http://host:port of Headrace
    HEADRACE_ACCESS_KEY_ID      a key of `api.keys`, and its secret; without them calls are sent as by anybody
    HEADRACE_SECRET_ACCESS_KEY
    HEADRACE_SERVICE_KEYS       keys of `api.keys` that are of a service, which it invokes with, such as
                                "s3=ID:SECRET sns=ID:SECRET events=ID:SECRET"; the others invoke with the key above
"""

import os
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session
from localstack.aws import handlers
from rolo.request import get_raw_path

HEADRACE = os.environ["HEADRACE_URL"].rstrip("/")
#: Headers of a call that belong to its own signature, or to the way to LocalStack.
DROPPED = ("x-amz-content-sha256", "x-amz-date", "x-amz-security-token")
#: Headers of an answer that are of the way to Headrace.
UNANSWERED = ("connection", "content-length", "date", "server", "transfer-encoding")

everybody = Credentials(
    os.environ.get("HEADRACE_ACCESS_KEY_ID", "any"), os.environ.get("HEADRACE_SECRET_ACCESS_KEY", "any")
)
named = (each.partition("=") for each in os.environ.get("HEADRACE_SERVICE_KEYS", "").split())
services = {service: Credentials(*key.split(":", 1)) for service, _, key in named}
session = URLLib3Session(timeout=900, max_pool_connections=50)


def hand_over(chain: Any, context: Any, response: Any) -> None:
    """Answer a call of Lambda's API as Headrace does; leave all others alone."""
    if context.service is None or context.service.service_name != "lambda":
        return
    asked = context.request
    query = asked.query_string.decode()
    request = AWSRequest(
        asked.method,
        f"{HEADRACE}{get_raw_path(asked)}{'?' if query else ''}{query}",
        headers={**kept_headers(asked.headers), **source_headers(context)},
        data=asked.get_data(),
    )
    SigV4Auth(services.get(called_by(context, "service_principal"), everybody), "lambda", context.region).add_auth(
        request
    )
    answer = session.send(request.prepare())
    response.status_code = answer.status_code
    response.set_data(answer.content)
    for name, value in answer.headers.items():
        if name.lower() not in UNANSWERED:
            response.headers[name] = value
    chain.stop()


def kept_headers(headers: Any) -> dict[str, str]:
    """Give the headers that say how a function is invoked, and of what type the body is."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in DROPPED and (name.lower().startswith("x-amz") or name.lower() == "content-type")
    }


def source_headers(context: Any) -> dict[str, str]:
    """Say for which bucket, topic or rule a service of LocalStack calls, for the policies of functions."""
    source = called_by(context, "source_arn")
    return {"X-Amz-Source-Arn": source, "X-Amz-Source-Account": context.account_id} if source else {}


def called_by(context: Any, what: str) -> str | None:
    """Say what is known of the service of LocalStack that calls; None = nothing."""
    known = getattr(context, "internal_request_params", None) or {}
    return known.get(what)


handlers.serve_custom_service_request_handlers.append(hand_over)
