//! A directory for private files: checked, locked, and written so that no file is ever half there.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::error::Error;

/// How long another process may hold the lock. It takes milliseconds to make a certificate.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(20);
/// The file that carries the lock. It stays, and is empty.
const LOCK: &str = "lock";
/// The suffix of a file that is still being written.
const STAGED: &str = ".new";
/// No certificate and no key is longer.
const MAX_FILE: u64 = 64 * 1024;

/// A directory, locked until it is dropped.
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory if it is not there (mode 0700), checks it, and waits for its lock.
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

    /// The text of a file that only its owner can read; `None` where there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, Error> {
        let path = self.path(name);
        if !is_private_file(&path)? {
            return Ok(None);
        }
        let text = fs::read_to_string(&path);
        text.map(Some).map_err(|error| broken(&path, format!("cannot be read: {}", reason(&error))))
    }

    /// Writes a new file beside the one of this name, and waits until the disk has it.
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

    /// What an interrupted [`Self::stage`] left of this name.
    pub(super) fn read_staged(&self, name: &str) -> Result<Option<String>, Error> {
        self.read(&format!("{name}{STAGED}"))
    }

    /// Puts what an interrupted process left in the place of the file of this name.
    pub(super) fn commit_staged(&self, name: &'static str) -> Result<(), Error> {
        Staged { directory: self, name, path: self.path(&format!("{name}{STAGED}")), stays: false }.commit()
    }

    /// Removes what an interrupted process left of this name.
    pub(super) fn remove_staged(&self, name: &str) -> Result<(), Error> {
        self.remove(&format!("{name}{STAGED}"))
    }

    /// Removes a file, if it is there.
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

    /// Asks the disk to keep the order of what was done. Some file systems cannot sync a directory: then it is theirs.
    fn sync(&self) {
        let _ = File::open(&self.path).and_then(|directory| directory.sync_all());
    }
}

/// A file that is written and not yet in place; removed if nothing tries to put it there.
pub(super) struct Staged<'a> {
    directory: &'a Directory,
    name: &'static str,
    path: PathBuf,
    stays: bool,
}

impl Staged<'_> {
    /// Puts the file in place of the one that is there, in one step.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        // Where that fails, the next process may need the file to finish.
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
            // Where that fails, the next process removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// An error about a file or a directory.
pub(super) fn broken(path: &Path, what: impl Into<String>) -> Error {
    Error::StateDir { path: path.to_owned(), what: what.into() }
}

/// The text of an error of the system, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn check_directory(path: &Path) -> Result<(), Error> {
    // Symbolic links are followed: systemd makes one to a directory of a dynamic user.
    let metadata = fs::metadata(path).map_err(|error| broken(path, reason(&error)))?;
    check_owner(path, &metadata, "chown the directory, or use another one (--state-dir)")?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let what = format!("other users may write to the directory (mode {mode:04o}): chmod 700 {}", path.display());
        return Err(broken(path, what));
    }
    Ok(())
}

/// Whether there is a file. An error where it is not a plain file of ours that only we can read.
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
