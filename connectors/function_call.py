"""One event on its way to a function that runs elsewhere: what goes wrong there, as an outcome."""

from __future__ import annotations

from collections.abc import Mapping

from connectors.function_answer import bad_answer, refused, timed_out, too_large
from connectors.http_answer import Answer, HttpError, TooLarge
from connectors.http_client import HttpClient, HungUp, Unanswered
from router.ports import Answered


async def post_event(
    http: HttpClient,
    headers: Mapping[str, str],
    event: bytes,
    *,
    request_id: str,
    timeout_s: float,
    what: str,
    troubles: Mapping[type[HttpError], str],
) -> Answer | Answered:
    """Send an event; give the answer, or how the call has ended without one.

    Args:
        http: where the function is.
        headers: all of the request.
        event: its body.
        request_id: for the message of a timeout.
        timeout_s: longest time from sending it to the end of the answer.
        what: names the function, for messages: "function priced".
        troubles: what went wrong before there was an answer -> what it means for the operator.
    """
    try:
        return await http.post(headers, event, timeout_s)
    except Unanswered:
        return Answered(timed_out(request_id, timeout_s))
    except TooLarge:
        return Answered(too_large())
    except HttpError as error:
        if isinstance(error, HungUp) and error.answering:
            return Answered(bad_answer("the answer ended before it was complete"))
        return Answered(refused(f"{what}: {troubles[type(error)]}"))
