"""docs/boto3.md in Python, followed on real servers: its code as it stands but for names and addresses."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

from aiokafka.admin import NewTopic

from tests.live.daemon import Daemon, cluster
from tests.live.page_script import blocks, printed
from tests.live.queue_rig import Queues

#: Names that others in the same LocalStack and Kafka may have.
NAMES = ("invoices", "payments.fifo", "clicks", "stock", "shipments", "orders-failed")
PATIENCE_S = 180.0


async def test_the_page(tmp_path: Path, queues: Queues, streams_endpoint: str, kafka_bootstrap: str) -> None:
    names = {f'"{name}"': f'"headrace-{uuid.uuid4().hex[:8]}-{name}"' for name in NAMES}
    async with Daemon(tmp_path) as daemon, cluster(kafka_bootstrap) as kafka:
        places = {"http://127.0.0.1:4566": streams_endpoint, "127.0.0.1:9301": f"127.0.0.1:{daemon.port}"}
        daemon.text = blocks("boto3.md", "yaml", {**places, "./.headrace": "./state"})
        script = blocks("boto3.md", "python", {**places, **names, "127.0.0.1:9092": kafka_bootstrap})
        await kafka.create_topics([NewTopic(names['"shipments"'].strip('"'), 1, 1)])
        await daemon.start()
        status, out, err = await daemon.run(sys.executable, "-c", script, within_s=PATIENCE_S)
        assert (out.splitlines(), err, status) == (list(printed(script)), "", 0)
        assert await daemon.terminate() == 0
    assert queues
