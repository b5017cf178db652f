"""What only a caller who remembers can get right: cursors, idempotency keys, what others need."""

import json
import pathlib
import uuid

import schemathesis

MATERIAL = [json.loads(line) for line in pathlib.Path("workflows.txt").read_text().splitlines()]


@schemathesis.hook
def before_call(context, case, kwargs):
    # Never delete these workflows: the other operations need them.
    if case.method == "DELETE" and (case.path_parameters or {}).get("id") in MATERIAL:
        case.path_parameters["id"] = str(uuid.uuid4())
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    # Send no generated cursor: only the server can make one, for one list.
    if case.query:
        case.query.pop("cursor", None)
    # Use each key once: short generated keys would repeat with other bodies.
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
