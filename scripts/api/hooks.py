"""What only a caller who remembers can get right: cursors and idempotency keys."""

import uuid

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    # A cursor is given by the server, for one list; none can be thought up.
    if case.query:
        case.query.pop("cursor", None)
    # A key is used once. Small generated keys would meet again with other bodies.
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
