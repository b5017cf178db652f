//! Creates folders and files that only the server's user may access, whatever the umask: they hold links,
//! keys and documents.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    path::Path,
};

/// Creates a folder and its parents. Existing folders stay as they are.
pub(crate) fn create_dir_all(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Creates a file. Fails if the path already exists.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes all files that this process creates private to its user. Call it before any other thread runs.
pub fn by_default() {
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Removes the access of other users to a file, or to a folder and its content. Returns true if others had
/// access. Links are not followed. If other users have no access to a folder, its content is not checked,
/// because they cannot reach it.
#[cfg(unix)]
pub(crate) fn close(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let is_open = fs::symlink_metadata(path)?.permissions().mode() & 0o077 != 0;
    if is_open {
        tighten(path)?;
    }
    Ok(is_open)
}

/// Returns whether other users can make, replace and delete files in a folder.
#[cfg(unix)]
pub(crate) fn is_open_to_writers(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o022 != 0)
}

#[cfg(unix)]
fn tighten(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o700))?;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            tighten(&entry?.path())?;
        }
    }
    Ok(())
}

/// Always false: on systems other than Unix the folder's own access list decides.
#[cfg(not(unix))]
pub(crate) fn is_open_to_writers(_: &Path) -> bool {
    false
}

/// Only checks that the path exists: on systems other than Unix the folder's own access list decides.
#[cfg(not(unix))]
pub(crate) fn close(path: &Path) -> io::Result<bool> {
    fs::symlink_metadata(path).map(|_| false)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_and_what_is_tightened_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        create_dir_all(&inner).unwrap();
        let file = inner.join("mail.eml");
        create_new(&file).unwrap();
        assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
        assert!(create_new(&file).is_err(), "nothing is written over");

        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, inner.join("link")).unwrap();
        let outer = folder.path().join("a");
        let opened = [
            (&outer, 0o755),
            (&inner, 0o755),
            (&file, 0o644),
            (&elsewhere, 0o644),
        ];
        for (path, open) in opened {
            fs::set_permissions(path, fs::Permissions::from_mode(open)).unwrap();
        }
        assert!(close(&outer).unwrap());
        assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
        assert_eq!(mode(&elsewhere), 0o644, "links are not followed");
        assert!(!close(&outer).unwrap(), "it is closed");

        assert!(!is_open_to_writers(&outer));
        fs::set_permissions(&outer, fs::Permissions::from_mode(0o720)).unwrap();
        assert!(is_open_to_writers(&outer));
    }
}
