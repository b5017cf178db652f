#!/usr/bin/env python3
"""A small server for tests that speaks the protocol of Amazon S3, on moto.

    s3.py BUCKET

Listens on a free port of 127.0.0.1, makes the bucket, and prints `listening on PORT`. Keeps everything in
memory and runs until it is killed.
"""

import sys
import threading

import boto3
from moto.server import ThreadedMotoServer


def main():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket=sys.argv[1])
    print(f"listening on {port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
