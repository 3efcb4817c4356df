//! What buildkitd asks of the pull endpoint, read on the way.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// A port on the way, where nobody listens yet.
pub struct Tap {
    /// What buildkitd is to be told.
    pub address: String,
    listener: TcpListener,
}

/// The same, passing everything on.
pub struct Tapped {
    asked: Arc<Mutex<Vec<String>>>,
    _passing: AbortOnDropHandle<()>,
}

impl Tap {
    /// Takes a free port.
    pub async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        Self { address, listener }
    }

    /// Passes everything on to `endpoint`.
    pub fn before(self, endpoint: &str) -> Tapped {
        let (asked, endpoint) = (Arc::<Mutex<Vec<String>>>::default(), endpoint.to_owned());
        let seen = asked.clone();
        let passing = tokio::spawn(async move {
            while let Ok((client, _)) = self.listener.accept().await {
                tokio::spawn(pass(client, endpoint.clone(), seen.clone()));
            }
        });
        Tapped {
            asked,
            _passing: AbortOnDropHandle::new(passing),
        }
    }
}

impl Tapped {
    /// The path of each request so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// One connection; a request is written at once by BuildKit's client, so that
/// what is read begins with its first line.
async fn pass(client: TcpStream, endpoint: String, asked: Arc<Mutex<Vec<String>>>) {
    let Ok(server) = TcpStream::connect(endpoint).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
            let text = String::from_utf8_lossy(&bytes[..read]);
            let path = text
                .strip_prefix("GET ")
                .and_then(|line| line.split(' ').next());
            asked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(path.map(str::to_owned));
            if to_server.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    };
    let answers = tokio::io::copy(&mut from_server, &mut to_client);
    let _ = tokio::join!(requests, answers);
}
