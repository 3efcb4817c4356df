//! Where clients come in: unix sockets and TCP, plain or TLS.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::config::Endpoint;
use crate::tls::Acceptor;

/// A connected client.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A bound address.
pub enum Listener {
    /// A unix socket; its file goes when the listener goes.
    Unix(UnixListener, SocketFile),
    /// TCP.
    Tcp(TcpListener, Option<Acceptor>),
}

/// A client whose handshake, if there is one, is still to be done; that is not
/// the accept loop's business, since a client can take its time over it.
pub enum Accepted {
    /// Ready as it is.
    Plain(Box<dyn Stream>),
    /// A TLS handshake is to come.
    Tls(Acceptor, tokio::net::TcpStream),
}

impl Listener {
    /// Binds `endpoint`. TCP takes `tls` where it is given. The socket file of
    /// a process that died is replaced, that of a live one is not.
    pub async fn bind(endpoint: &Endpoint, tls: Option<Acceptor>) -> io::Result<Self> {
        match endpoint {
            Endpoint::Unix(path) => {
                if UnixStream::connect(path).await.is_ok() {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        "another process listens on this socket",
                    ));
                }
                remove_stale(path)?;
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                let listener = UnixListener::bind(path)?;
                let file = SocketFile(path.clone());
                // As buildkitd's own: for its user and group.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
                Ok(Self::Unix(listener, file))
            }
            Endpoint::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?, tls)),
        }
    }

    /// The address as clients can use it: port 0 is the real port by now.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        match self {
            Self::Unix(_, file) => Ok(Endpoint::Unix(file.0.clone())),
            Self::Tcp(listener, _) => Ok(Endpoint::Tcp(listener.local_addr()?.to_string())),
        }
    }

    /// Whether other hosts can connect.
    pub fn is_open_to_others(&self) -> bool {
        match self {
            Self::Unix(..) => false,
            Self::Tcp(listener, _) => !listener
                .local_addr()
                .is_ok_and(|address| address.ip().is_loopback()),
        }
    }

    /// The next client.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener, _) => Ok(Accepted::Plain(Box::new(listener.accept().await?.0))),
            Self::Tcp(listener, tls) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(match tls {
                    None => Accepted::Plain(Box::new(stream)),
                    Some(acceptor) => Accepted::Tls(acceptor.clone(), stream),
                })
            }
        }
    }
}

impl Accepted {
    /// Finishes the handshake.
    pub async fn ready(self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Plain(stream) => Ok(stream),
            Self::Tls(acceptor, stream) => Ok(Box::new(acceptor.accept(stream).await?)),
        }
    }
}

/// Removes its file on drop.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good as removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is no socket is in the way",
        )),
    }
}
