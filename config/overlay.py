"""What runs: the file, with what was made through the API laid over it. Pure.

The file wins: where it has a function of a name, whatever was made under that name, in any version, does not run.
Settings of what has not changed are the same objects as before, so that what changes is found by looking at that alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from config.aws_forms import APPLICATION_LEVELS, LOG_FORMATS
from config.settings import AnyFunction, Configuration, FunctionSettings, MappingSettings
from connectors.settings import Secret


def overlay(
    file: Configuration, functions: Mapping[str, AnyFunction], mappings: Sequence[MappingSettings]
) -> Configuration:
    """Give what runs.

    Args:
        file: what the file says.
        functions: those that were made, by name, and by name and version (`orders:3`).
        mappings: those that were made and are enabled.
    """
    made = {name: each for name, each in functions.items() if name.partition(":")[0] not in file.functions}
    taken = {each.mapping.name for each in file.mappings}
    return replace(
        file,
        functions={**made, **file.functions},
        mappings=(*file.mappings, *(each for each in mappings if each.mapping.name not in taken)),
    )


def function_settings(
    name: str,
    *,
    handler: str,
    code: Path,
    code_given: str,
    runtime: str,
    timeout_s: int,
    memory_mb: int,
    reserved_concurrency: int | None,
    environment: Mapping[str, str],
    logs: str,
    logging: Mapping[str, str],
) -> FunctionSettings:
    """Give the settings of a function that was made, or of a version of it; what the API has no word for is usual.

    `logs` says where what functions print goes, as the file does, and `logging` has the members of LoggingConfig.
    """
    return FunctionSettings(
        name=name,
        handler=handler,
        code=code,
        python=None,
        timeout_s=float(timeout_s),
        memory_bytes=memory_mb * 1024 * 1024,
        reserved_concurrency=reserved_concurrency,
        concurrency_per_worker=1,
        snap_start=False,
        environment={variable: Secret(text) for variable, text in environment.items()},
        logs=logs != "off",
        log_level=APPLICATION_LEVELS.get(logging.get("ApplicationLogLevel", "")),
        runtime=runtime,
        ships_logs=logs == "cloudwatch",
        log_group=logging.get("LogGroup"),
        log_format=LOG_FORMATS[logging.get("LogFormat", "Text")],
        code_given=code_given,
    )
