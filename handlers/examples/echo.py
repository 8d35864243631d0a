"""Returns what it was given, and says so in its log."""

import logging

log = logging.getLogger()
log.setLevel("INFO")


def handle(event, context):
    log.info("%d ms left", context.get_remaining_time_in_millis())
    return event
