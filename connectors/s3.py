"""S3 notifications as a QueueSource: the messages of a queue, read as the notifications of one bucket."""

from __future__ import annotations

from connectors.s3_codec import S3Codec
from connectors.settings import S3Settings
from connectors.sqs import SqsSource


class S3Source(SqsSource):
    """A queue that a bucket notifies, directly or through SNS."""

    def __init__(self, settings: S3Settings) -> None:
        """Prepare without I/O."""
        super().__init__(settings.sqs, S3Codec(settings))
