import base64
import json


def handler(event, context):
    for record in records(event):
        order = json.loads(record)
        print("order", order["id"], "total", order["price"] * order["quantity"])


def records(event):
    """Give the bodies of messages of SQS, or the values of records of Kafka."""
    if "Records" in event:
        return [message["body"] for message in event["Records"]]
    return [base64.b64decode(record["value"]) for records in event["records"].values() for record in records]
