//! Real handshakes on loopback.

use std::io;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// An authority, and what it has signed.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), cert.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { dir, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Signs a certificate for `localhost`, and writes it and its key to the
    /// files with that name.
    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), cert.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn server(&self) -> ServerTls {
        self.sign("server", |_| ());
        ServerTls {
            cert: self.file("server.pem"),
            key: self.file("server.key"),
            client_ca: None,
            alpn: Alpn::Http,
        }
    }

    fn client(&self) -> ClientTls {
        ClientTls {
            roots: Roots::Only(self.file("ca.pem")),
            identity: None,
            server_name: None,
            alpn: Alpn::Http,
        }
    }

    fn identity(&self) -> Option<(PathBuf, PathBuf)> {
        self.sign("client", |_| ());
        Some((self.file("client.pem"), self.file("client.key")))
    }
}

/// What came of a connection, on either side; the client's is what it saw of
/// the server: its certificate, and the protocol that was agreed on.
struct Met {
    server: io::Result<()>,
    client: io::Result<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Met {
    fn ok(self) -> (Vec<u8>, Option<Vec<u8>>) {
        self.server.unwrap();
        self.client.unwrap()
    }

    /// The reason of the side that saw one first.
    fn refused(self) -> String {
        assert!(self.client.is_err(), "the client was served");
        let error = self.server.err().or(self.client.err()).unwrap();
        error.to_string()
    }
}

/// Connects a client and sends one byte each way.
async fn meet(acceptor: &Acceptor, connector: &Connector, host: &str) -> Met {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte + 1).await?;
        stream.shutdown().await
    };
    let client = async {
        let stream = TcpStream::connect(address).await?;
        let mut stream = connector.connect(host, stream).await?;
        let (_, session) = stream.get_ref();
        let cert = session.peer_certificates().unwrap()[0].to_vec();
        let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
        stream.write_u8(1).await?;
        assert_eq!(stream.read_u8().await?, 2);
        Ok((cert, protocol))
    };
    let (server, client) = tokio::join!(server, client);
    Met { server, client }
}

fn der(pem: &Path) -> Vec<u8> {
    files::chain(pem).unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_server_and_a_client_agree_on_the_best_that_both_speak() {
    let authority = Authority::new("ours");
    let acceptor = authority.server().acceptor().unwrap();
    for (alpn, host) in [(Alpn::Http, "localhost"), (Alpn::H2, "127.0.0.1")] {
        let client = ClientTls {
            alpn,
            ..authority.client()
        };
        let met = meet(&acceptor, &client.connector().unwrap(), host).await;
        let (cert, protocol) = met.ok();
        assert_eq!(cert, der(&authority.file("server.pem")));
        assert_eq!(protocol.as_deref(), Some(&b"h2"[..]));
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_the_next_client_and_a_broken_one_is_not() {
    let authority = Authority::new("ours");
    let acceptor = authority.server().acceptor().unwrap();
    let connector = authority.client().connector().unwrap();
    let shown = async || meet(&acceptor, &connector, "localhost").await.ok().0;
    let pem = authority.file("server.pem");
    let first = der(&pem);
    assert_eq!(shown().await, first);

    // The certificate of a key that has not come yet.
    let key = std::fs::read(authority.file("server.key")).unwrap();
    authority.sign("server", |_| ());
    let second = der(&pem);
    let new_key = std::fs::read(authority.file("server.key")).unwrap();
    std::fs::write(authority.file("server.key"), key).unwrap();
    acceptor.look();
    assert_eq!(shown().await, first);
    std::fs::write(authority.file("server.key"), new_key).unwrap();
    acceptor.look();
    assert_eq!(shown().await, second);

    std::fs::write(&pem, "nonsense").unwrap();
    acceptor.look();
    assert_eq!(shown().await, second);
    std::fs::remove_file(&pem).unwrap();
    acceptor.look();
    assert_eq!(shown().await, second);
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_not_talked_to() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let acceptor = ours.server().acceptor().unwrap();
    let refused = async |tls: ClientTls, host| {
        let met = meet(&acceptor, &tls.connector().unwrap(), host).await;
        met.client.unwrap_err().to_string()
    };
    let error = refused(other.client(), "localhost").await;
    assert!(error.contains("UnknownIssuer"), "{error}");
    let system = ClientTls {
        roots: Roots::System(Some(other.file("ca.pem"))),
        ..ours.client()
    };
    let error = refused(system, "localhost").await;
    assert!(error.contains("UnknownIssuer"), "{error}");
    let error = refused(ours.client(), "example.org").await;
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn an_own_authority_is_trusted_beside_those_of_the_system() {
    let ours = Authority::new("ours");
    let acceptor = ours.server().acceptor().unwrap();
    let system = ClientTls {
        roots: Roots::System(Some(ours.file("ca.pem"))),
        ..ours.client()
    };
    meet(&acceptor, &system.connector().unwrap(), "localhost")
        .await
        .ok();
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_or_to_come_is_refused() {
    let authority = Authority::new("ours");
    for (from, until, told) in [(2001, 2002, "Expired"), (3001, 3002, "NotValidYet")] {
        let server = authority.server();
        authority.sign("server", |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
        });
        let acceptor = server.acceptor().unwrap();
        let connector = authority.client().connector().unwrap();
        let met = meet(&acceptor, &connector, "localhost").await;
        let error = met.client.unwrap_err().to_string().replace(' ', "");
        assert!(
            error.to_lowercase().contains(&told.to_lowercase()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn where_client_certificates_are_wanted_nobody_comes_in_without_a_right_one() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let wants = ServerTls {
        client_ca: Some(ours.file("ca.pem")),
        ..ours.server()
    };
    let acceptor = wants.acceptor().unwrap();
    let with = |identity| {
        ClientTls {
            identity,
            ..ours.client()
        }
        .connector()
        .unwrap()
    };
    meet(&acceptor, &with(ours.identity()), "localhost")
        .await
        .ok();
    let error = meet(&acceptor, &with(None), "localhost").await.refused();
    assert!(error.contains("no certificates"), "{error}");
    let stranger = with(other.identity());
    let error = meet(&acceptor, &stranger, "localhost").await.refused();
    assert!(error.contains("UnknownIssuer"), "{error}");

    // The authority is replaced: who was let in before is not any more, though
    // it has a session that could be resumed.
    let known = with(ours.identity());
    meet(&acceptor, &known, "localhost").await.ok();
    std::fs::copy(other.file("ca.pem"), ours.file("clients.pem")).unwrap();
    std::fs::rename(ours.file("ca.pem"), ours.file("kept.pem")).unwrap();
    std::fs::rename(ours.file("clients.pem"), ours.file("ca.pem")).unwrap();
    acceptor.look();
    let error = meet(&acceptor, &known, "localhost").await.refused();
    assert!(error.contains("UnknownIssuer"), "{error}");
    meet(&acceptor, &stranger, "localhost").await.ok();
}

#[tokio::test]
async fn plain_text_to_a_tls_port_is_refused_at_once() {
    let authority = Authority::new("ours");
    let acceptor = authority.server().acceptor().unwrap();
    for text in ["GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(text.as_bytes()).await.unwrap();
        let error = acceptor.accept(server).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
}

#[tokio::test]
async fn a_peer_that_never_ends_its_handshake_is_left() {
    const LIMIT: Duration = Duration::from_millis(5);
    let authority = Authority::new("ours");
    let acceptor = authority.server().acceptor().unwrap();
    let (_client, server) = tokio::io::duplex(1024);
    let error = acceptor.accept_within(LIMIT, server).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let connector = authority.client().connector().unwrap();
    let (client, _server) = tokio::io::duplex(1 << 16);
    let connected = connector.connect_within(LIMIT, "localhost", client).await;
    let error = connected.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn files_that_make_no_sense_are_told_by_name() {
    let authority = Authority::new("ours");
    let server = authority.server();
    let absent = authority.file("absent.pem");
    let garbage = authority.file("garbage.pem");
    std::fs::write(&garbage, "nonsense").unwrap();
    for wrong in [
        ServerTls {
            cert: absent.clone(),
            ..server.clone()
        },
        ServerTls {
            key: garbage.clone(),
            ..server.clone()
        },
        ServerTls {
            client_ca: Some(garbage),
            ..server.clone()
        },
    ] {
        let error = wrong.acceptor().err().unwrap().to_string();
        assert!(error.contains(".pem"), "{error}");
    }
    let swapped = ServerTls {
        key: authority.identity().unwrap().1,
        ..server
    };
    let error = swapped.acceptor().err().unwrap().to_string();
    assert!(error.starts_with("TLS: "), "{error}");
    let nameless = ClientTls {
        server_name: Some("a b".to_owned()),
        ..authority.client()
    };
    assert!(nameless.connector().is_err());
}
