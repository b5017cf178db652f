//! Ports on 127.0.0.1 that stay reserved for the process that asked for them.

use std::{
    env,
    fs::{self, File},
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

/// The ports to choose from. They are below the systems' range for client connections, so that no connection
/// takes a port between two starts of a server.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Reserves a free port of 127.0.0.1. No other test gets the port as long as this process lives.
#[must_use]
pub fn reserve() -> u16 {
    static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = folder();
    let count = u128::from(PORTS.end - PORTS.start);
    let first = Uuid::new_v4().as_u128() % count;
    for offset in 0..count {
        let port = PORTS.start + u16::try_from((first + offset) % count).expect("one of them");
        let reserved = File::create(folder.join(port.to_string())).expect("the folder is ours");
        // Also try to listen: a server may still be running on a port whose reservation has ended.
        if reserved.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            let mut all = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(reserved);
            return port;
        }
    }
    panic!("no port of the loopback is free");
}

/// The folder of the reservations. It belongs to the user, because all of a user's checkouts share the ports.
fn folder() -> PathBuf {
    let user = fs::metadata("/proc/self").map_or(0, |it| it.uid());
    let folder = env::temp_dir().join(format!("docg-test-ports-{user}"));
    fs::create_dir_all(&folder).expect("the temporary directory is writable");
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_reserved_twice() {
        let ports: Vec<_> = (0..100).map(|_| reserve()).collect();
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ports.len());
    }
}
