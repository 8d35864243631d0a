"""Fetch what was uploaded and write its key and its number of rows: a handler of `headrace demo`."""

import os
from pathlib import Path
from urllib.parse import unquote_plus

import boto3

s3 = boto3.client("s3")


def handler(event, context):
    with Path(os.environ["OUTPUT"]).open("a") as output:
        for record in event["Records"]:
            bucket = record["s3"]["bucket"]["name"]
            key = unquote_plus(record["s3"]["object"]["key"])
            rows = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode().splitlines()
            output.write(f"{len(rows)} {key}\n")
