//! Certificates for one test: an authority, a server and a client.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the certificates of one authority are.
#[derive(Clone)]
pub struct Tls(PathBuf);

impl Tls {
    /// Makes them with openssl.
    pub fn make(folder: PathBuf) -> Self {
        let tls = Self(folder);
        openssl(
            &tls.0,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
        );
        tls.sign(
            "server",
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
        );
        tls.sign("client", "extendedKeyUsage=clientAuth\n");
        tls
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// The server's certificate, for `localhost` and 127.0.0.1.
    pub fn server_cert(&self) -> PathBuf {
        self.0.join("server.pem")
    }

    /// The server's key.
    pub fn server_key(&self) -> PathBuf {
        self.0.join("server.key")
    }

    /// The client's certificate.
    pub fn client_cert(&self) -> PathBuf {
        self.0.join("client.pem")
    }

    /// The client's key.
    pub fn client_key(&self) -> PathBuf {
        self.0.join("client.key")
    }

    fn sign(&self, name: &str, extensions: &str) {
        std::fs::write(self.0.join(format!("{name}.ext")), extensions).expect("a file");
        openssl(
            &self.0,
            &format!(
                "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ),
        );
        openssl(
            &self.0,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem"
            ),
        );
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .expect("openssl runs");
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
