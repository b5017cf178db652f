//! Documents in a bucket, over the protocol of Amazon S3.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use reqwest::{Method, StatusCode};

use crate::process::Server;

/// A server process of its own, ended with the test.
struct Buckets {
    child: Child,
    url: String,
}

impl Buckets {
    fn start(bucket: &str) -> Self {
        let python = std::env::var("DOCG_TEST_S3").expect(
            "DOCG_TEST_S3 must name a python that has moto[server]: this test needs a server that speaks \
             S3. scripts/test makes one",
        );
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/s3.py");
        let mut child = Command::new(&python)
            .args([script, bucket])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("DOCG_TEST_S3 is {python:?}, which does not start: {e}"));
        let output = child.stdout.take().expect("it is piped");
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let port = lines.filter_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()));
        let url = port.map(|port| format!("http://127.0.0.1:{port}")).next();
        Self {
            child,
            url: url.expect("it has moto[server], and listens"),
        }
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_kept_saved_and_signed_in_a_bucket() {
    let buckets = Buckets::start("documents");
    let account = [
        ("AWS_ENDPOINT", buckets.url.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let server = Server::start_in(&account, &["--files-url", "s3://documents/of/docg"]);
    let id = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&id).await;
    for signer in ["signer.one@example.com", "signer.two@example.com"] {
        let link = server.link_for(signer).await;
        let (status, _) = server.fill_in(&link, "name=Signer&consent=yes").await;
        assert_eq!(status, StatusCode::OK);
    }
    server.until(&id, &["completed"]).await;
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
