//! A real SMTP server, as a process.

// Each test binary uses a part of this module.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// A mail server in its own process, which is killed when this value is dropped.
pub(crate) struct MailServer {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl MailServer {
    /// Starts a mail server with these options of `smtpd.py`.
    pub(crate) fn start(options: &[&str]) -> Self {
        let python = std::env::var("DOCG_TEST_SMTPD").expect(
            "DOCG_TEST_SMTPD must name a python that has aiosmtpd: these tests need a real SMTP server. \
             scripts/test makes one",
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/smtpd.py");
        let mut child = Command::new(&python)
            .arg(script)
            .arg(folder.path())
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("DOCG_TEST_SMTPD is {python:?}, which does not start: {e}"));
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("its output is read");
        let port = line
            .trim()
            .strip_prefix("listening on ")
            .and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| {
            panic!("the SMTP server said {line:?}; does {python} have aiosmtpd?")
        });
        Self {
            child,
            folder,
            port,
        }
    }

    /// The URL of the server, without a setting for encryption.
    pub(crate) fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    /// The accepted mails, in order.
    pub(crate) fn mails(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("the folder is there");
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.expect("readable").path())
            .collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "eml"));
        paths.sort();
        let read =
            |path| String::from_utf8_lossy(&std::fs::read(path).expect("readable")).into_owned();
        paths.into_iter().map(read).collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // An error means that the server has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
