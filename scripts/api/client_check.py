"""Runs a workflow with the client that was generated from the document.

    client_check.py URL TOKEN WORKFLOW    in the folder that holds the package `client`
"""

import sys
import uuid

sys.path.insert(0, ".")

from client import AuthenticatedClient  # noqa: E402
from client.api.executions import get_execution, list_steps, start_execution  # noqa: E402
from client.models import CreateExecution, Execution, Steps  # noqa: E402

url, token, workflow = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=token)
started = start_execution.sync(
    uuid.UUID(workflow), client=client, body=CreateExecution(dry_run=True))
assert isinstance(started, Execution), started
read = get_execution.sync(started.id, client=client)
assert isinstance(read, Execution), read
assert read.id == started.id and read.dry_run and read.workflow_id == uuid.UUID(workflow), read
steps = list_steps.sync(started.id, client=client)
assert isinstance(steps, Steps), steps
print(f"    the generated client has started and read {read.id}: {read.status.value}")
