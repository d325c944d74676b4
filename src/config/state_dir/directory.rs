//! A directory for private files: checked, locked, and written atomically.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::certificates::reason;
use crate::config::error::Error;

/// How long to wait while another process holds the lock. Creating a certificate takes milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(20);
/// The lock file. It is empty, and is never removed.
const LOCK: &str = "lock";
/// The suffix of a staged file: written, but not yet renamed.
const STAGED: &str = ".new";
/// The largest file that is read, in bytes. Certificates and keys are smaller.
const MAX_FILE: u64 = 64 * 1024;

/// A directory whose lock is held until this value is dropped.
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Creates the directory (mode 0700) if it does not exist, checks it, and waits for its lock.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|error| broken(path, reason(&error)))?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| broken(&path, format!("the directory cannot be made: {}", reason(&error))))?;
        check_directory(&path)?;
        let lock = lock(&path.join(LOCK))?;
        Ok(Self { path, _lock: lock })
    }

    /// The path of a file.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file that only its owner can read; `None` if it does not exist.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, Error> {
        let path = self.path(name);
        if !is_private_file(&path)? {
            return Ok(None);
        }
        let text = fs::read_to_string(&path);
        text.map(Some).map_err(|error| broken(&path, format!("cannot be read: {}", reason(&error))))
    }

    /// Writes a staged file beside the file of this name, and syncs it to disk.
    pub(super) fn stage<'a>(&'a self, name: &'static str, text: &str) -> Result<Staged<'a>, Error> {
        let path = self.path(&format!("{name}{STAGED}"));
        let failed = |error: io::Error| {
            let kept = "the files that were there are unchanged";
            broken(&self.path(name), format!("cannot be written: {}; {kept}", reason(&error)))
        };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let staged = Staged { directory: self, name, path, stays: false };
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(staged)
    }

    /// Reads the staged file that an interrupted [`Self::stage`] left for this name.
    pub(super) fn read_staged(&self, name: &str) -> Result<Option<String>, Error> {
        self.read(&format!("{name}{STAGED}"))
    }

    /// Renames the staged file that an interrupted process left for this name.
    pub(super) fn commit_staged(&self, name: &'static str) -> Result<(), Error> {
        Staged { directory: self, name, path: self.path(&format!("{name}{STAGED}")), stays: false }.commit()
    }

    /// Removes the staged file that an interrupted process left for this name.
    pub(super) fn remove_staged(&self, name: &str) -> Result<(), Error> {
        self.remove(&format!("{name}{STAGED}"))
    }

    /// Removes a file if it exists.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(broken(&path, format!("cannot be removed: {}", reason(&error))))
            }
            _ => {
                self.sync();
                Ok(())
            }
        }
    }

    /// Syncs the directory, so that renames reach the disk in order. Ignores errors: some file systems cannot do this.
    fn sync(&self) {
        let _ = File::open(&self.path).and_then(|directory| directory.sync_all());
    }
}

/// A file that is written but not yet renamed. Drop removes it, unless `commit` was called.
pub(super) struct Staged<'a> {
    directory: &'a Directory,
    name: &'static str,
    path: PathBuf,
    stays: bool,
}

impl Staged<'_> {
    /// Replaces the file of this name in one step.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        // If the rename fails, the next process may need the staged file to complete the work.
        self.stays = true;
        let target = self.directory.path(self.name);
        fs::rename(&self.path, &target)
            .map_err(|error| broken(&target, format!("cannot be replaced: {}", reason(&error))))?;
        self.directory.sync();
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.stays {
            // If this fails, the next process removes the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates an error about a file or a directory.
pub(super) fn broken(path: &Path, what: impl Into<String>) -> Error {
    Error::StateDir { path: path.to_owned(), what: what.into() }
}

fn check_directory(path: &Path) -> Result<(), Error> {
    // Follows symbolic links: systemd creates one for the state directory of a dynamic user.
    let metadata = fs::metadata(path).map_err(|error| broken(path, reason(&error)))?;
    check_owner(path, &metadata, "chown the directory, or use another one (--state-dir)")?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let what = format!("other users may write to the directory (mode {mode:04o}): chmod 700 {}", path.display());
        return Err(broken(path, what));
    }
    Ok(())
}

/// Whether the file exists. An error if it is not a regular file that belongs to this user and only this user can use.
fn is_private_file(path: &Path) -> Result<bool, Error> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found.map_err(|error| broken(path, reason(&error)))?,
    };
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return Err(broken(path, "is a symbolic link: put the file itself there, or remove the link"));
    }
    if kind.is_dir() {
        return Err(broken(path, "is a directory, not a file: move it away"));
    }
    if !kind.is_file() {
        return Err(broken(path, "is not a plain file: move it away"));
    }
    check_owner(path, &metadata, "chown the file, or move it away")?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let what = format!("other users may use the file (mode {mode:04o}): chmod 600 {}", path.display());
        return Err(broken(path, what));
    }
    if metadata.len() > MAX_FILE {
        return Err(broken(path, format!("has {} bytes, more than {MAX_FILE}: move it away", metadata.len())));
    }
    Ok(true)
}

fn check_owner(path: &Path, metadata: &Metadata, cure: &str) -> Result<(), Error> {
    let (owner, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == own {
        return Ok(());
    }
    Err(broken(path, format!("belongs to user id {owner}, and this process runs as {own}: {cure}")))
}

fn lock(path: &Path) -> Result<File, Error> {
    is_private_file(path)?;
    let failed = |error: io::Error| broken(path, format!("cannot be locked: {}", reason(&error)));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(failed)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                let seconds = LOCK_TIMEOUT.as_secs();
                return Err(broken(path, format!("another process has held the lock for {seconds} s: end it")));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_POLL),
        }
    }
}
