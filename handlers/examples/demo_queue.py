"""Add up orders from a queue and write one line for each: a handler of `headrace demo`, with a bug for it to find."""

import json
import os


def handler(event, context):
    orders = [json.loads(record["body"]) for record in event["Records"]]
    write("".join(f"{order['order']} {total(order)}\n" for order in orders))


def total(order):
    return sum(item["quantity"] * item["price"] for item in order["items"])


def write(text):
    """Append in one step, so that a batch is written whole or not at all."""
    descriptor = os.open(os.environ["OUTPUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
