"""Add up orders and write one line for each: the handler of `headrace demo`, with a bug for it to find."""

import base64
import json
import os


def handler(event, context):
    lines = []
    for records in event["records"].values():
        for record in records:
            order = json.loads(base64.b64decode(record["value"]))
            lines.append(f"{order['order']} {total(order)}\n")
    write("".join(lines))


def total(order):
    return sum(item["quantity"] * item["price"] for item in order["items"])


def write(text):
    """Append in one step, so that a batch is written whole or not at all."""
    descriptor = os.open(os.environ["OUTPUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
