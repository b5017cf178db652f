#!/usr/bin/env python3
"""Holds a reference server against its own OpenAPI document.

    check.py SERVER_BINARY [--examples N] [--seed N]

In turn: the document is one by the rules of OpenAPI 3.1; a client that is generated from it runs a
workflow; an SSE client that somebody else wrote follows one; schemathesis finds nothing that the
document does not say. Needs what scripts/requirements/api.txt names. The server listens on a free port of the
loopback, keeps all it has in a temporary folder, and is stopped at the end.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
TOOLS = pathlib.Path(sys.executable).parent
TOKEN = "token-of-the-api-check"
SCOPES = ["executions:read", "executions:write", "executions:debug", "audit:read", "workflows:write"]
PATIENCE = 30


class Server:
    """A reference server that serves, and how to call it."""

    def __init__(self, url, folder, organization):
        self.url, self.folder, self.organization = url, folder, organization

    def call(self, method, path, body=None):
        headers = {"authorization": f"Bearer {TOKEN}"}
        data = None
        if body is not None:
            headers["content-type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return json.load(response)

    def start(self, nodes):
        """Starts a run of these nodes; gives the ids of the workflow and of the run."""
        workflow = str(uuid.uuid4())
        self.call("PUT", f"/api/v1/workflows/{workflow}", {"name": "Check", "nodes": nodes})
        run = self.call("POST", f"/api/v1/workflows/{workflow}/executions", {})
        return workflow, run["id"]

    def until(self, what, fits):
        """Waits until something is there, and gives it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := fits():
                return found
            time.sleep(0.05)
        raise SystemExit(f"check.py: {what} did not happen within {PATIENCE} s")


@contextlib.contextmanager
def serving(binary, folder):
    organization = str(uuid.uuid4())
    auth = folder / "auth.json"
    auth.write_text(json.dumps({"tokens": [{
        "token": TOKEN, "actor": "check", "organizations": [organization], "scopes": SCOPES,
    }]}))
    command = [
        binary, "serve", "--bind", "127.0.0.1:0", "--auth-file", auth,
        "--data-dir", folder / "data", "--workflows", REPOSITORY / "examples/reference-server/workflows",
        "--enable-test-nodes", "--heartbeat-ms", "200",
    ]
    own = {name: value for name, value in os.environ.items()
           if not name.startswith("DOCG_") and name not in ("DATABASE_URL", "REDIS_URL")}
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, cwd=folder, env=own, text=True)
    try:
        said = process.stdout.readline()
        listening = re.match(r"listening on (http://\S+)", said)
        if not listening:
            process.wait(timeout=PATIENCE)
            raise SystemExit(f"check.py: the server does not serve: {(folder / 'server.log').read_text()}")
        yield Server(listening[1], folder, organization)
        if process.poll() is not None:
            raise SystemExit(f"check.py: the server has ended: {(folder / 'server.log').read_text()}")
    finally:
        process.terminate()
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def validate(document):
    from openapi_spec_validator import OpenAPIV31SpecValidator

    errors = list(OpenAPIV31SpecValidator(document).iter_errors())
    for error in errors:
        print(f"    {error.json_path}: {error.message}", file=sys.stderr)
    if errors:
        raise SystemExit("check.py: the document breaks the rules of OpenAPI 3.1")
    operations = sum(len(item) for item in document["paths"].values())
    print(f"    OpenAPI {document['openapi']}: {len(document['paths'])} paths, {operations} operations")


def material(server):
    """Makes runs in several states; their ids go where schemathesis.toml looks for them."""
    approval = [{"id": "ask", "type": "approval", "phase": "save",
                 "params": {"approvers": ["ann@example.com"]}}]
    delay = lambda ms: [{"id": "n", "type": "test-delay", "phase": "render", "params": {"ms": ms}}]
    fails = [{"id": "n", "type": "test-fail", "phase": "render", "on_error": "review",
              "params": {"times": 1, "code": "timeout", "retryable": False}}]
    runs = [server.start(nodes) for nodes in [delay(1), delay(60_000), delay(60_000), fails, approval]]
    done = f"/api/v1/executions/{runs[0][1]}"
    server.until("a run", lambda: server.call("GET", done)["status"] == "completed")
    mails = lambda: "".join(p.read_text() for p in (server.folder / "data").rglob("*.eml"))
    # Quoted-printable breaks long lines.
    links = lambda: re.findall(r"/approvals/([A-Za-z0-9_-]{20,})", mails().replace("=\n", ""))
    approvals = server.until("an invitation to approve", links)
    signature = signing(server)
    for name, values in {
        "signatures": {signature},
        "workflows": {workflow for workflow, _ in runs},
        "executions": {run for _, run in runs},
        "approvals": set(approvals),
        "organizations": {server.organization},
    }.items():
        (server.folder / f"{name}.txt").write_text("".join(f'"{value}"\n' for value in sorted(values)))


def signing(server):
    """Runs the sample workflow until it waits for signatures; gives the request's id."""
    examples = REPOSITORY / "examples/reference-server"
    workflows = server.call("GET", "/api/v1/workflows")["workflows"]
    contract = next(it["id"] for it in workflows if it["name"] == "Service contract")
    data = json.loads((examples / "samples/contract.good.json").read_text())
    run = server.call("POST", f"/api/v1/workflows/{contract}/executions", {"trigger_data": data})

    def request():
        waiting = server.call("GET", f"/api/v1/executions/{run['id']}")["waiting_for"]
        return waiting and waiting["kind"] == "signature" and waiting["detail"]["signature_request_id"]

    return server.until("a request for signatures", request)


def schemathesis(server, examples, seed):
    for name in ["schemathesis.toml", "hooks.py"]:
        shutil.copy(HERE / name, server.folder / name)
    command = [
        TOOLS / "schemathesis", "--config-file", "schemathesis.toml", "run",
        f"{server.url}/openapi.json", "--max-examples", str(examples), "--seed", str(seed),
        "--warnings", "off", "--continue-on-failure",
    ]
    own = dict(os.environ, DOCG_TEST_TOKEN=TOKEN)
    if subprocess.run(command, cwd=server.folder, env=own).returncode:
        raise SystemExit("check.py: schemathesis has found what the document does not say")


def generated_client(server):
    # The generator skips operations that REST clients do not need: event streams and providers' webhooks.
    (server.folder / "client.yaml").write_text("post_hooks: []\n")
    made = subprocess.run(
        [TOOLS / "openapi-python-client", "generate", "--url", f"{server.url}/openapi.json",
         "--output-path", "client", "--meta", "none", "--config", "client.yaml"],
        cwd=server.folder, text=True, capture_output=True)
    if made.returncode:
        raise SystemExit(f"check.py: no client can be generated: {made.stdout}{made.stderr}")
    workflow = json.loads((server.folder / "workflows.txt").read_text().splitlines()[0])
    subprocess.run(
        [sys.executable, HERE / "client_check.py", server.url, TOKEN, workflow],
        cwd=server.folder, check=True)


def foreign_stream(server):
    delay = lambda n: {"id": f"n{n}", "type": "test-delay", "phase": "render", "params": {"ms": 50}}
    _, run = server.start([delay(n) for n in range(6)])
    subprocess.run(
        [sys.executable, HERE / "stream_check.py", server.url, TOKEN, run],
        cwd=server.folder, check=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary", type=lambda path: pathlib.Path(path).resolve())
    arguments.add_argument("--examples", type=int, default=20, help="per operation")
    arguments.add_argument("--seed", type=int, default=20260115, help="another one, other calls")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="docg-api-") as folder:
        with serving(given.binary, pathlib.Path(folder)) as server:
            validate(server.call("GET", "/openapi.json"))
            material(server)
            generated_client(server)
            foreign_stream(server)
            schemathesis(server, given.examples, given.seed)


if __name__ == "__main__":
    main()
