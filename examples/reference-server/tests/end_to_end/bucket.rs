//! Documents in a bucket, which the server reaches over the protocol of Amazon S3.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Seek},
    os::unix::ffi::OsStrExt,
    process::{Child, Command, Stdio},
};

use reqwest::Method;

use crate::process::Server;

/// A bucket server in its own process, which is killed when this value is dropped.
struct Buckets {
    child: Child,
    url: String,
}

impl Buckets {
    fn start(bucket: &str) -> Self {
        let python = std::env::var("DOCG_TEST_S3").expect(
            "DOCG_TEST_S3 must name a python that has moto and its server: this test needs a server that \
             speaks S3. scripts/test makes one",
        );
        let mut log = tempfile::tempfile().expect("a temporary file");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/s3.py");
        let mut child = Command::new(&python)
            .args([script, bucket])
            .stdout(Stdio::piped())
            .stderr(log.try_clone().expect("it is open"))
            .spawn()
            .unwrap_or_else(|e| panic!("DOCG_TEST_S3 is {python:?}, which does not start: {e}"));
        let output = child.stdout.take().expect("it is piped");
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let port = lines.filter_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()));
        let url = port.map(|port| format!("http://127.0.0.1:{port}")).next();
        let url = url.unwrap_or_else(|| {
            // The bucket server's output was closed, so the bucket server has ended.
            let _ = child.wait();
            let mut said = String::new();
            let read = log.rewind().and_then(|()| log.read_to_string(&mut said));
            panic!("{python} does not serve buckets ({read:?}): {said}")
        });
        Self { child, url }
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        // An error means that the server has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_kept_saved_and_signed_in_a_bucket() {
    let buckets = Buckets::start("documents");
    let environment = [
        ("AWS_ENDPOINT", OsStr::new(&buckets.url)),
        ("AWS_ALLOW_HTTP", OsStr::new("true")),
        ("AWS_REGION", OsStr::new("us-east-1")),
        ("AWS_ACCESS_KEY_ID", OsStr::new("test")),
        ("AWS_SECRET_ACCESS_KEY", OsStr::new("test")),
        // A variable of another program, which must not stop the server.
        ("NOT_UTF_8", OsStr::from_bytes(b"\xff")),
    ];
    let server = Server::start_in(&environment, &["--files-url", "s3://documents/of/docg"]);
    let id = server.start_contract("contract.good.json").await;
    server.sign_all(&id).await;
    let path = format!("/api/v1/executions/{id}/files/sign");
    let signed = server.request(Method::GET, &path).send().await;
    let signed = signed.expect("it answers").bytes().await.expect("a file");
    assert!(signed.starts_with(b"%PDF-"));
    let steps = server.get(&format!("/api/v1/executions/{id}/steps")).await;
    let url = steps["steps"][2]["data_out"]["url"]
        .as_str()
        .expect("a URL");
    assert!(url.starts_with("s3://documents/of/docg/saved/"), "{url}");
    assert!(!server.data().join("files").exists(), "nothing lies here");
}
