"""Which function a mapping means: one of the file by its name or its ARN, or one that is named by nothing but its ARN.

AWS's own way to name a function is its ARN. Where a function of the file has that ARN, or has the ARN's name and a
handler of its own, it is meant; else the function deployed there is invoked, as if the file had it with `arn`.
"""

from __future__ import annotations

from dataclasses import replace

from config.blocks import BlockOf
from config.document import Entry, Node
from config.mistakes import Unfit
from config.names import FunctionArn, parse_function
from config.reading import Reader
from config.schema import EventSource, Function, Root


def resolve(root: Root, reader: Reader) -> Root:
    """Put the name of a function into every mapping that names one by its ARN, and add those that the file lacks."""
    if not root.sound("functions", "event_source_mappings"):
        return root
    functions, mappings = dict(root.functions), dict(root.event_source_mappings)
    for name, mapping in mappings.items():
        arn = parse_function(mapping.function) if mapping.sound("function") else None
        if arn is None:
            continue
        try:
            found = _find(arn, functions)
            if found is None:
                found = _new_name(arn, functions)
                functions[found] = _deployed(mapping, reader)
            mappings[name] = replace(mapping, function=found)
        except Unfit as unfit:
            reader.report.add(mapping.at("function"), f"found {mapping.entries['function'].node.shown()}, {unfit}")
    return replace(root, functions=functions, event_source_mappings=mappings)


def _find(arn: FunctionArn, functions: dict[str, Function]) -> str | None:
    """Give the function of the file that an ARN means; None = there is none. Raises Unfit where it is not clear."""
    same = [name for name, function in functions.items() if function.arn and parse_function(function.arn) == arn]
    namesake = functions.get(arn.name)
    if namesake is not None and arn.name not in same and (same or not namesake.gives("handler")):
        same.append(arn.name)
        if len(same) == 1:
            raise Unfit(f"and function {arn.name} of this file is another: allowed a function of this file by its name")
    if len(same) > 1:
        raise Unfit(f"which may be the functions {' and '.join(same)} of this file: allowed one of these names")
    if same or namesake is None:
        return same[0] if same else None
    if arn.qualifier is not None:
        raise Unfit("allowed a function without version or alias: a function of this file has one code")
    return arn.name


def _new_name(arn: FunctionArn, functions: dict[str, Function]) -> str:
    """Name a function that only its ARN names."""
    name = f"{arn.name}-{arn.qualifier}" if arn.qualifier else arn.name
    if name in functions:
        raise Unfit(f"which would be called {name}, as another is: allowed a function of this file, with that arn")
    return name


def _deployed(mapping: EventSource, reader: Reader) -> Function:
    """Make the block that the file might have had."""
    place = mapping.at("function")
    reader.report.note(place, "it is no function of this file, so the one that is deployed there is invoked")
    entry = Entry(place.line, replace(mapping.entries["function"].node, value=mapping.function))
    return reader.read(BlockOf(Function), Node(place.line, {"arn": entry}), place)
