"""Follows a run with an SSE client that somebody else wrote, and breaks off after every few events.

    stream_check.py URL TOKEN EXECUTION
"""

import sys

import httpx
from httpx_sse import connect_sse

url, token, execution = sys.argv[1:]
stream = f"{url}/api/v1/sse/executions/{execution}/stream"
seen, connected, last = [], 0, None
with httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=30) as http:
    while not seen or seen[-1]["event_type"] != "execution.completed":
        resume = {"last-event-id": last} if last else {}
        with connect_sse(http, "GET", stream, headers=resume) as source:
            taken = 0
            for frame in source.iter_sse():
                if frame.event == "connected":
                    connected += 1
                elif frame.event != "heartbeat":
                    event = frame.json()
                    assert event["event_type"] == frame.event and frame.id, frame
                    seen.append(event)
                    last, taken = frame.id, taken + 1
                    if taken == 3:
                        break
    numbers = [event["seq"] for event in seen]
    assert numbers == list(range(1, len(seen) + 1)), numbers
    assert connected > 1, "it has reconnected"
    over = http.get(stream, headers={"last-event-id": last})
    assert over.status_code == 204, over
print(f"    a foreign client has read {len(seen)} events over {connected} connections")
