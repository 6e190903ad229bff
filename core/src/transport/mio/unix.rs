//! A listening socket in the file system, and whose file it is.
//!
//! Sits beside `mio.rs`. A server that was killed leaves its file behind, and the next one could not
//! bind; but a file that is no socket, or one on which somebody answers, is not ours to remove.
//!
//! Invariants
//! - The file goes with its listener, if it is still the one that we made.
//!
//! Not here: registering and accepting (`mio.rs`).

use mio::net::{UnixListener, UnixStream};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A listener with the file that stands for it.
#[derive(Debug)]
pub(super) struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file that we made.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// Binds `path`, in place of a socket that its owner left behind.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_abandoned(path) => {
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            outcome => outcome?,
        };
        Ok(Self {
            listener,
            identity: identity(path),
            path: path.to_owned(),
        })
    }

    /// Another descriptor of its socket.
    pub(super) fn share(&self) -> io::Result<UnixListener> {
        let own = std::os::fd::AsFd::as_fd(&self.listener).try_clone_to_owned()?;
        let own = std::os::unix::net::UnixListener::from(own);
        own.set_nonblocking(true)?;
        Ok(UnixListener::from_std(own))
    }

    /// Where it listens.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// To register it and to accept.
    pub(super) fn listener_mut(&mut self) -> &mut UnixListener {
        &mut self.listener
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Should the system refuse, the file stays behind, as after a crash: the next server
            // finds it abandoned.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether `path` is a socket on which nobody answers. The connection is tried without blocking,
/// so a server whose backlog is full counts as answering.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}
