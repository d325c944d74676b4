//! A Unix socket with a file of its own: the file has its mode before a process can connect, and is removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Further temporary names that are tried, if a name is taken.
const ATTEMPTS: usize = 8;

/// A listening Unix socket. Its file is removed when it is dropped, unless another program has made it.
pub(super) struct SocketFile {
    /// The listening socket, which does not block.
    pub(super) socket: Socket,
    /// The path of the socket file.
    pub(super) path: PathBuf,
    /// Device and inode of the file. A file that has replaced it is left alone. `None`: the file is another program's.
    file: Option<(u64, u64)>,
}

impl SocketFile {
    /// Takes a socket that another program has opened, and whose file it removes.
    pub(super) fn inherited(socket: Socket, path: &Path) -> Self {
        Self { socket, path: path.to_owned(), file: None }
    }

    /// Listens on `path`. The file of a server that is gone is replaced; any other file is an error.
    pub(super) fn bind(path: &Path, kind: Type, mode: u32, backlog: i32) -> io::Result<Self> {
        make_room(path, kind)?;
        let socket = Socket::new(Domain::UNIX, kind, None)?;
        // The socket gets a temporary name until it has its mode and listens, so no client connects too early.
        let unfinished = bind_beside(&socket, path)?;
        let bound = (|| {
            fs::set_permissions(&unfinished, fs::Permissions::from_mode(mode))?;
            socket.listen(backlog)?;
            socket.set_nonblocking(true)?;
            let file = fs::symlink_metadata(&unfinished)?;
            fs::rename(&unfinished, path)?;
            Ok((file.dev(), file.ino()))
        })();
        if bound.is_err() {
            drop(fs::remove_file(&unfinished));
        }
        bound.map(|file| Self { socket, path: path.to_owned(), file: Some(file) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| Some((file.dev(), file.ino())) == self.file);
        if ours {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Checks that `path` is free: no file is there but a socket on which no process listens.
fn make_room(path: &Path, kind: Type) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    let caller = Socket::new(Domain::UNIX, kind, None)?;
    // Non-blocking: a server that is too busy to accept is alive as well.
    caller.set_nonblocking(true)?;
    match caller.connect(&SockAddr::unix(path)?) {
        // The old server is gone. The later rename replaces its socket file.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // Another process listens, whichever socket type it uses.
        Ok(()) | Err(_) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
    }
}

/// Binds the socket to a temporary name beside `path`, and returns that name.
///
/// No file beside the socket is touched: `bind` fails for a name that exists, whichever file has it.
fn bind_beside(socket: &Socket, path: &Path) -> io::Result<PathBuf> {
    let mut attempts = 0..ATTEMPTS;
    loop {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:08x}", fastrand::u32(..)));
        let unfinished = path.with_file_name(name);
        match socket.bind(&SockAddr::unix(&unfinished)?) {
            Ok(()) => return Ok(unfinished),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts.next().is_some() => {}
            Err(error) => return Err(error),
        }
    }
}
