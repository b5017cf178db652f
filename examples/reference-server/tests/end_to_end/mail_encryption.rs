//! Mail over STARTTLS. The server sends mail only to a mail server with a certificate of a trusted authority,
//! and never falls back to plain text.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::{mail_server::MailServer, process::Server};

/// A certificate authority, and the folder with its files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("the folder is ours");
        Self { issuer, folder }
    }

    /// The file of the root certificate.
    fn root(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Starts a mail server with a certificate of this authority for `name`.
    fn mail_server(&self, name: &str, options: &[&str]) -> MailServer {
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signs");
        let file = self.folder.path().join("server.pem");
        let pem = format!("{}{}", certificate.pem(), key.serialize_pem());
        std::fs::write(&file, pem).expect("the folder is ours");
        let file = file.display().to_string();
        MailServer::start(&[&["--certificate", &file], options].concat())
    }
}

/// Sends a mail from a server that trusts the certificates in `trusted`. Returns the execution.
async fn send(trusted: &Path, smtp_url: &str) -> Value {
    let server = Server::start_in(&[("SSL_CERT_FILE", trusted)], &["--smtp-url", smtp_url]);
    let nodes = json!([{"id": "send", "type": "send-email",
        "params": {"to": "recipient@example.com", "subject": "Contract", "body": "Here it is."},
        "retry": {"max_attempts": 2, "initial_ms": 10, "max_ms": 20, "multiplier": 2.0}}]);
    let id = server.start_nodes(nodes).await;
    server
        .until(&id, &["completed", "failed", "needs_review"])
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_to_a_server_that_wants_encryption_and_shows_a_trusted_certificate() {
    let authority = Authority::new("ours");
    let options = ["--require-starttls", "--login", "desk:secret"];
    let mail_server = authority.mail_server("127.0.0.1", &options);
    let at = format!("127.0.0.1:{}", mail_server.port);
    // For a URL with a password, the server requires encryption.
    let execution = send(&authority.root(), &format!("smtp://desk:secret@{at}")).await;
    assert_eq!(execution["status"], "completed", "{execution:#}");
    assert_eq!(mail_server.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_to_no_server_whose_certificate_is_wrong_nor_in_plain_text_instead() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    for (name, root, told) in [
        ("127.0.0.1", stranger.root(), "UnknownIssuer"),
        ("mail.example.com", authority.root(), "not valid for name"),
    ] {
        // This mail server would also accept mail without encryption.
        let mail_server = authority.mail_server(name, &[]);
        for encryption in ["", "?tls=opportunistic", "?tls=required"] {
            let execution = send(&root, &format!("{}{encryption}", mail_server.url())).await;
            assert_eq!(execution["status"], "failed", "{execution:#}");
            assert_eq!(execution["error_code"], "connection_error");
            let tech = execution["last_error_tech"].as_str().unwrap_or_default();
            assert!(tech.contains(told), "{encryption}: {tech}");
            let human = execution["last_error_human"].as_str().expect("words");
            for term in ["TLS", "SSL", "SMTP", "certificate", "Issuer", "127.0.0.1"] {
                assert!(!human.contains(term), "{human}");
            }
            let actions = &execution["recommended_actions"];
            assert_eq!(actions[0]["action"], "reconnect_provider", "{actions}");
            assert!(mail_server.mails().is_empty(), "{name}{encryption}");
        }
    }
}
