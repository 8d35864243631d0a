"""What a daemon loads: nothing of AWS until a mapping needs it, and nothing that only terminals need."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import router.assembly
heavy = ("aioboto3", "aiobotocore", "botocore", "boto3", "pydantic", "rich.progress", "IPython")
print(*sorted(name for name in heavy if name in sys.modules))
"""


def test_a_daemon_for_kafka_alone_loads_no_aws_libraries() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
