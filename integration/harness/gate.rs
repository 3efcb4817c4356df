//! Holding a build at one of its steps, without a sleep.

use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::lab::free_port;

/// What the step of `testdata/gate` waits for: somebody who listens on a port.
pub struct Gate(u16);

/// Keeps a gate open.
pub struct OpenGate {
    _accepting: AbortOnDropHandle<()>,
}

impl Gate {
    /// A closed one.
    pub fn closed() -> Self {
        Self(free_port())
    }

    /// The build argument that names it, for buildctl.
    pub fn buildctl_argument(&self) -> String {
        format!("--opt=build-arg:PORT={}", self.0)
    }

    /// The build argument that names it, for buildx.
    pub fn buildx_argument(&self) -> String {
        format!("--build-arg=PORT={}", self.0)
    }

    /// Lets every build through, as long as the answer lives.
    pub async fn open(&self) -> OpenGate {
        let listener = TcpListener::bind(("127.0.0.1", self.0))
            .await
            .expect("the port is still free");
        let accepting = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        OpenGate {
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }
}
