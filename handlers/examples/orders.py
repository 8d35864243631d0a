"""Adds up orders from Kafka, and reports the records it cannot read instead of failing the whole batch.

The mapping needs `function_response_types: [ReportBatchItemFailures]`.
"""

import base64
import json
import logging

log = logging.getLogger()
log.setLevel("INFO")


def handle(event, context):
    failures = []
    total = 0
    for records in event["records"].values():
        for record in records:
            try:
                total += json.loads(base64.b64decode(record["value"]))["amount"]
            except (KeyError, TypeError, ValueError) as error:
                place = {"partition": f"{record['topic']}-{record['partition']}", "offset": record["offset"]}
                log.warning("cannot read %s: %r", place, error)
                failures.append({"itemIdentifier": place})
    log.info("orders worth %s", total)
    return {"batchItemFailures": failures}
