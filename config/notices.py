"""What is right in a document and may surprise, for people: shown by `headrace check`."""

from __future__ import annotations

from config import sharing
from config.mistakes import Report
from config.schema import KAFKA_RETRIES_WITH_DESTINATION, EventSource, Root


def find(root: Root, report: Report) -> None:
    """Note all surprises of a document in which no mistake was found."""
    for mapping in root.event_source_mappings.values():
        if mapping.maximum_retry_attempts == -1 and mapping.destination_config.on_failure is not None:
            _unlimited(mapping, report)
        if mapping.renamed_from and mapping.source.kafka is not None and mapping.source.kafka.consumer_group is None:
            report.note(
                mapping.at("renamed_from"),
                "the mapping reads on as the consumer group of its former name; write that as `consumer_group` into "
                "its source before you take this key out",
            )
    if not root.event_source_mappings:
        report.note(root.at("event_source_mappings"), "there are none: nothing is read until the API makes some")
    sharing.notice(root.event_source_mappings, report)


def _unlimited(mapping: EventSource, report: Report) -> None:
    place = mapping.at("maximum_retry_attempts")
    if mapping.source.kafka is not None:
        report.note(
            place,
            f"-1 with a destination means {KAFKA_RETRIES_WITH_DESTINATION} retries, as on AWS; "
            "give a number to choose another limit",
        )
    elif mapping.maximum_record_age_in_seconds != -1:
        return
    elif mapping.source.carrier is None:
        report.note(
            place,
            "-1 tries what fails again without end, as on AWS, and its shard waits behind it, so the destination is "
            "never told; give a number of retries, or maximum_record_age_in_seconds",
        )
    else:
        report.note(
            place,
            "-1 leaves what fails to the queue and its redrive policy, as on AWS, so the destination is told only of "
            "messages that cannot be given to the function at all; give a number of retries to tell it of what fails",
        )
