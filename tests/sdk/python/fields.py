"""Which fields objects and events have in JSON: the table of `../fields.json`, which both SDKs' tests read.

A row names fields; `a.b` is a field of a field. `a:row` is itself as that row says, `a[]:row` each of its items, and a
`*` in it is the `type` of what is found. What may be null ends in `?`; it is there all the same.
"""

import json
import pathlib

TABLE = json.loads((pathlib.Path(__file__).parent.parent / "fields.json").read_text())


def missing(value, row: str) -> list[str]:
    """What the row names and the value lacks."""
    if row.endswith("*"):
        row = row[:-1] + value["type"]
    if row not in TABLE:
        return [f"no row `{row}`"]
    return [f"{row}: {fault}" for field in TABLE[row].split(" ") for fault in lacks(value, field)]


def lacks(value, field: str) -> list[str]:
    path, _, row = field.partition(":")
    found = value
    for name in path.rstrip("?").removesuffix("[]").split("."):
        if not isinstance(found, dict) or name not in found:
            return [path]
        found = found[name]
    if found is None:
        return [] if path.endswith("?") else [f"{path} is null"]
    items = found if path.endswith("[]") else [found]
    return [f"{path} > {fault}" for item in items if row for fault in missing(item, row)]
