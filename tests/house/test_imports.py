"""What a daemon loads: nothing of AWS until something needs it, and nothing that only terminals need."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import router.service
heavy = ("aioboto3", "aiobotocore", "botocore", "boto3", "pydantic", "redis", "rich.progress", "IPython")
sources = ("aws", "dynamodb", "kafka", "kinesis", "redis", "s3", "sns", "source", "sqs")
ours = tuple(f"connectors.{name}" for name in sources)
print(*sorted(name for name in sys.modules if name in heavy or name.startswith(ours)))
"""


def test_a_daemon_loads_what_its_sources_need_and_no_more() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
