//! Server processes that stop by themselves once no test process uses them.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::ports;

/// The parent of a server, a shell script. It starts the server, and stops it when no process has held the
/// lock `users` for some seconds. While it stops the server it holds `starting`, so that no process joins at
/// that moment.
const GUARDIAN: &str = r#"
dir=$1 remove=$2 grace=$3 signal=$4; shift 4
"$@" >>"$dir/log" 2>&1 9>&- &
server=$!
echo "$server" >"$dir/pid.new" && mv "$dir/pid.new" "$dir/pid"
idle=0
while kill -0 "$server" 2>/dev/null; do
  sleep 1
  if flock -n -x "$dir/users" true; then idle=$((idle + 1)); else idle=0; fi
  if [ "$idle" -ge "$grace" ]; then
    exec 9>"$dir/starting"
    flock -x 9
    if flock -n -x "$dir/users" true; then
      rm -f "$dir/address" "$dir/pid"
      kill -s "$signal" "$server"
      wait "$server"
      rm -rf "$remove"
      exit
    fi
    exec 9>&-
    idle=0
  fi
done
wait "$server"
"#;

/// The time limit for the start and the end of a server.
const PATIENCE: Duration = Duration::from_secs(60);

/// How to start a kind of server.
#[derive(Debug)]
pub(crate) struct Program {
    /// The signal that stops the server in an orderly way.
    pub(crate) stop: &'static str,
    /// The program and its arguments, for the server's own directory and a port.
    pub(crate) command: fn(&Path, u16) -> Vec<OsString>,
    /// True if only one process may use the server. The server's data are then deleted at its end.
    pub(crate) is_private: bool,
    /// How long the server stays up while no process uses it.
    pub(crate) grace_seconds: u32,
    /// Prepares the directory before the first start.
    pub(crate) prepare: fn(&Path),
}

/// A directory for this checkout's tests. It is under the temporary directory, because the server may run as
/// another user, who cannot read the checkout.
pub(crate) fn home(name: &str) -> PathBuf {
    let probe = env::temp_dir();
    let mut hasher = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
    let user = fs::metadata("/proc/self").map_or(0, |it| it.uid());
    let home = probe.join(format!("docg-test-{user}-{:08x}", hasher.finish() as u32));
    let dir = home.join(name);
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
    dir
}

/// True if root owns `dir`. This process made `dir`, so it then runs as root itself, and a server that
/// refuses root needs another user.
pub(crate) fn is_root(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|it| it.uid() == 0)
}

/// A running server. It runs at least until this value is dropped and no other process holds its lock.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    users: File,
}

impl Running {
    /// Joins the server in `dir`, or starts it.
    pub(crate) fn join(dir: PathBuf, program: &Program) -> Self {
        let users = open(&dir.join("users"));
        users.lock_shared().expect("flock works here");
        let starting = open(&dir.join("starting"));
        starting.lock().expect("flock works here");
        let address = dir.join("address");
        let known = fs::read_to_string(&address)
            .ok()
            .and_then(|it| it.trim().parse().ok());
        let port = known.filter(|port| answers(*port)).unwrap_or_else(|| {
            if !dir.join("data").exists() {
                (program.prepare)(&dir);
            }
            let port = start(&dir, program);
            fs::write(&address, port.to_string()).expect("the directory is ours");
            port
        });
        Self { dir, port, users }
    }

    /// Restarts the server on the same port after it ended.
    pub(crate) fn start_again(&self, program: &Program) {
        spawn(&self.dir, program, self.port);
        wait_until_up(&self.dir, self.port);
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, name: &str) {
        if let Some(pid) = self.pid() {
            run("kill", ["-s", name, &pid.to_string()]);
        }
    }

    /// Sends the server a signal that ends it, and waits for its end.
    pub(crate) fn end(&self, signal: &str) {
        let Some(pid) = self.pid() else { return };
        self.signal(signal);
        let patience = Instant::now() + PATIENCE;
        // The server's parent reaps the server, so the pid disappears.
        while is_alive(pid) {
            assert!(Instant::now() < patience, "the server {pid} does not end");
            thread::sleep(Duration::from_millis(20));
        }
        let _ = fs::remove_file(self.dir.join("pid"));
    }

    /// Ends the server at once and deletes its data.
    pub(crate) fn remove(&self) {
        self.end("QUIT");
        let _ = self.users.unlock();
        // Retry: the server's child processes end a moment later and may still write.
        let patience = Instant::now() + PATIENCE;
        while fs::remove_dir_all(&self.dir).is_err() && self.dir.exists() {
            assert!(
                Instant::now() < patience,
                "cannot remove {}",
                self.dir.display()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("pid"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }
}

fn open(path: &Path) -> File {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()))
}

fn start(dir: &Path, program: &Program) -> u16 {
    let port = ports::reserve();
    spawn(dir, program, port);
    wait_until_up(dir, port);
    port
}

fn spawn(dir: &Path, program: &Program, port: u16) {
    require("flock", "util-linux");
    let _ = fs::remove_file(dir.join("pid"));
    let guardian = Command::new("sh")
        .args(["-c", GUARDIAN, "docg-test-server"])
        .arg(dir)
        .arg(if program.is_private {
            dir.into()
        } else {
            dir.join("data")
        })
        .arg(program.grace_seconds.to_string())
        .arg(program.stop)
        .args((program.command)(dir, port))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A process group of its own: if a user ends the test's group, the server stays up for other tests.
        .process_group(0)
        .spawn();
    let mut guardian = guardian.expect("there is a shell");
    // Reap the guardian if it ends before this process.
    thread::spawn(move || guardian.wait());
}

fn wait_until_up(dir: &Path, port: u16) {
    let patience = Instant::now() + PATIENCE;
    // Also wait for the pid file: without it, signals cannot reach the server.
    while !(answers(port) && dir.join("pid").exists()) {
        let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
        let ended = fs::read_to_string(dir.join("pid"))
            .ok()
            .and_then(|pid| pid.trim().parse().ok())
            .is_some_and(|pid| !is_alive(pid));
        assert!(
            !ended && Instant::now() < patience,
            "the server did not come up:\n{}",
            log()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn answers(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

fn is_alive(pid: u32) -> bool {
    let status = Command::new("kill")
        .args(["-0", &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Runs a program and panics if it fails.
pub(crate) fn run<I: IntoIterator<Item: AsRef<OsStr>>>(program: impl AsRef<OsStr>, arguments: I) {
    let program = program.as_ref();
    let output = Command::new(program)
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", program.display()));
    assert!(
        output.status.success(),
        "{} failed:\n{}{}",
        program.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Panics if a program is missing, and names the package to install.
pub(crate) fn require(program: &str, package: &str) {
    assert!(
        in_path(program).is_some(),
        "these tests need the program {program}: install {package}"
    );
}

/// The first folder of `PATH` that has the program.
pub(crate) fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).find(|dir| dir.join(program).is_file())
}
