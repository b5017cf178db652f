//! The two servers of the README, started by its commands. Each block of commands runs in its own terminal.

use std::{
    fs::Permissions,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
};

use docg_test_servers::ports;

use crate::{
    program::{Running, shell},
    readme,
    server::{Server, Servers, audit_verifies},
    takeover::waiting_runs,
};

/// A reader of the README, with a repository folder and services, which end when this value is dropped.
struct Reader {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Reader {
    fn new() -> Self {
        // If the test runs as root, Postgres runs as another user, who must be able to enter the folder.
        let folder = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .expect("a temporary folder");
        let scripts = readme::repository().join("scripts");
        symlink(scripts, folder.path().join("scripts")).expect("a link");
        let [postgres, redis] = [(); 2].map(|()| ports::reserve());
        let services = folder.path().join("services").display().to_string();
        let variables = vec![
            ("DOCG_SERVICES_HOME", services),
            ("DOCG_POSTGRES_PORT", postgres.to_string()),
            ("DOCG_REDIS_PORT", redis.to_string()),
            ("DOCG_BIND", "127.0.0.1:0".to_owned()),
            ("DOCG_LEASE_MS", "2000".to_owned()),
            ("DOCG_HEARTBEAT_MS", "200".to_owned()),
            ("DOCG_ENABLE_TEST_NODES", "true".to_owned()),
        ];
        Self { folder, variables }
    }

    /// A terminal that runs these commands.
    fn terminal(&self, commands: &str) -> Command {
        let mut shell = shell(commands);
        shell
            .current_dir(self.folder.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        shell
    }

    /// A terminal that runs these commands, which start a server.
    fn server(&self, name: &str, commands: &str) -> Server {
        let log = self.folder.path().join(format!("{name}.log"));
        Server::of(Running::start(self.terminal(commands), log))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let removed = self.terminal("scripts/services remove").status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("the services in {} still run", self.folder.path().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_s_two_servers_share_the_work_and_one_goes_on_where_the_other_was_killed() {
    let blocks = readme::blocks("Durable, and several processes");
    let [one, other] = <[String; 2]>::try_from(blocks).expect("two terminals");
    let port = "127.0.0.1:8081";
    assert!(other.contains(port), "{other}");
    let other = other.replace(port, "127.0.0.1:0");
    let reader = Reader::new();
    let mut first = reader.server("first", &one);
    let second = reader.server("second", &other);
    assert_eq!(first.token, second.token, "one --data-dir, one token");

    // Suspend the second server until the first has claimed all executions.
    second.running.signal("STOP");
    let servers = Servers::of(&first);
    // The steps take longer than the start of three executions, even on a busy machine.
    let runs = waiting_runs(&first, &servers, 3, 5_000).await;
    second.running.signal("CONT");
    servers.add(&second);
    first.running.kill();
    servers.remove(&first);

    for (follower, id) in runs {
        let seen = follower.finish().await;
        assert!(seen.opened > 1, "its stream went on at the other server");
        assert_eq!(second.execution(&id).await["status"], "completed");
        audit_verifies(&second, &id).await;
    }
    let begin = "eval \"$(scripts/services start)\"";
    assert!(one.contains(begin), "{one}");
    let verify = format!("{begin}; cargo run -p reference-server -- audit verify");
    let verified = reader.terminal(&verify).output().expect("it runs");
    let said = String::from_utf8_lossy(&verified.stderr);
    assert_eq!(verified.status.code(), Some(0), "{said}");
}
