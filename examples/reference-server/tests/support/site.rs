//! A site: the database, Redis, folder and callers that all servers of a test share.

// Each test binary uses a part of this module.
#![allow(dead_code)]

use std::{path::PathBuf, process::Output};

use serde_json::json;

use crate::program::{Running, program};

/// A token with all rights for each of two organizations.
pub(crate) const TENANTS: [(&str, &str); 2] = [
    (
        "test-token-of-the-first-tenant",
        "00000000-0000-7000-8000-0000000000a1",
    ),
    (
        "test-token-of-the-second-tenant",
        "00000000-0000-7000-8000-0000000000a2",
    ),
];

pub(crate) struct Site {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    variables: Vec<(&'static str, &'static str)>,
}

impl Site {
    /// A site whose servers all get these arguments.
    pub(crate) fn new(database_url: &str, redis_url: Option<&str>, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tokens = TENANTS.map(|(token, organization)| {
            json!({"token": token, "actor": "test", "organizations": [organization],
                "scopes": ["executions:read", "executions:write", "executions:debug",
                    "audit:read", "workflows:write"]})
        });
        let auth = folder.path().join("auth.json");
        std::fs::write(&auth, json!({"tokens": tokens}).to_string()).expect("the folder is ours");
        let (auth, data) = (auth.display().to_string(), folder.path().join("data"));
        let data = data.display().to_string();
        let mut all = vec!["--database-url", database_url];
        all.extend(["--auth-file", &auth, "--data-dir", &data]);
        all.extend(redis_url.iter().flat_map(|url| ["--redis-url", url]));
        all.extend(arguments);
        Self {
            arguments: all.into_iter().map(str::to_owned).collect(),
            variables: Vec::new(),
            folder,
        }
    }

    /// Adds a variable to the environment of all servers.
    pub(crate) fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// Starts a server. Its log file is named after `name`.
    pub(crate) fn spawn(&self, name: &str, arguments: &[&str]) -> Running {
        let mut command = program(&[]);
        command.args(&self.arguments).args(arguments);
        command.envs(self.variables.iter().copied());
        Running::start(command, self.folder.path().join(format!("{name}.log")))
    }

    /// Runs a command of the program until it ends.
    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        let mut command = program(&[]);
        let command = command.args(&self.arguments).args(arguments);
        command.output().expect("the program starts")
    }

    /// The effects that nodes of type `test-effect` have had, each as the ids of its execution and node.
    pub(crate) fn ledger(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.data().join("ledger.tsv")).unwrap_or_default();
        let effect = |line: &str| {
            let mut fields = line.split('\t').map(str::to_owned);
            fields.next().zip(fields.next())
        };
        text.lines()
            .map(|line| effect(line).unwrap_or_else(|| panic!("{line:?} is no line of a ledger")))
            .collect()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}
