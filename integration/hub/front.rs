//! The port of a hub, asked for what is no call of gRPC.

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use layerd::tls::{Alpn, ClientTls, Roots};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::ask::{export, look_up, noise};
use super::place;
use crate::harness::{DEADLINE, Hub, Lab, Metrics, Tls, until};

/// Any stream of bytes.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(hub: &Hub) -> TcpStream {
    TcpStream::connect(hub.address()).await.unwrap()
}

/// One request, by HTTP/1.1 or by HTTP/2 without asking first.
async fn get(stream: Box<dyn Stream>, version: Version, path: &str) -> Response<Incoming> {
    let request = Request::get(format!("http://layerd{path}"));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let stream = TokioIo::new(stream);
    if version == Version::HTTP_2 {
        let http2 = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
        let (mut sender, connection) = http2.await.unwrap();
        tokio::spawn(connection);
        return sender.send_request(request).await.unwrap();
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

async fn assert_nothing_there(answer: Response<Incoming>) {
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["code"], "not_found", "{body}");
    assert!(body["error"]["message"].is_string(), "{body}");
}

/// What a stream gives until the hub hangs up.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut heard)).await;
    // How it hangs up is its own affair.
    let _ = read.expect("the hub hangs up");
    heard
}

#[tokio::test]
async fn http_of_both_versions_is_answered_beside_grpc() {
    let lab = Lab::new();
    let hub = lab.hub("one").start().await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for path in ["/", "/v1/nothing", "/layerd.v1.Cache/LookUp"] {
            let stream = Box::new(connect(&hub).await);
            assert_nothing_there(get(stream, version, path).await).await;
        }
    }
    let mut client = hub.client(None).await;
    let main = place("p", "main");
    export(&mut client, &main, &[noise(1, 1000)], "x").await;
    assert!(look_up(&mut client, &main, false).await.unwrap().is_some());
    let metrics = Metrics::at(hub.metrics_address()).await;
    let counted = "layerd_http_requests_total{route=\"none\",outcome=\"not_found\"}";
    assert_eq!(metrics.value(counted), 6.0);
}

#[tokio::test]
async fn tls_serves_both_versions_as_the_client_wants() {
    let lab = Lab::new();
    let tls = Tls::make(lab.folder("tls"));
    let (cert, key) = (tls.server_cert(), tls.server_key());
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let arguments = ["--tls-cert", &cert, "--tls-key", &key];
    let hub = lab.hub("one").arguments(arguments).start().await;
    let connector = ClientTls {
        roots: Roots::Only(tls.ca()),
        identity: None,
        server_name: None,
        alpn: Alpn::Http,
    };
    let connector = connector.connector().unwrap();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let stream = connector.connect("127.0.0.1", connect(&hub).await).await;
        let stream = stream.unwrap();
        let chosen = stream.get_ref().1.alpn_protocol();
        assert_eq!(chosen, Some(&b"h2"[..]), "the better one of those offered");
        assert_nothing_there(get(Box::new(stream), version, "/").await).await;
    }
}

#[tokio::test]
async fn garbage_and_heads_that_never_end_are_hung_up_on() {
    let lab = Lab::new();
    let hub = lab.hub("one").start().await;
    let endless = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; 1 << 20]].concat();
    for said in [
        &b"\0\x01\x02\x03garbage"[..],
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame at all",
        b"GET / HTTP/9.9\r\n\r\n",
        // A head that breaks off, and one that does not end.
        b"GET / HTTP/1.1\r\nhost: x\r\n",
        &endless,
    ] {
        let mut stream = connect(&hub).await;
        // It may have been hung up on by then.
        let _ = stream.write_all(said).await;
        let heard = rest(stream).await;
        assert!(!heard.starts_with(b"HTTP/1.1 200"), "{heard:?}");
    }
    until("nobody is left", async || {
        let metrics = Metrics::at(hub.metrics_address()).await;
        (metrics.sum("layerd_hub_connections") == 0.0).then_some(())
    })
    .await;
    assert!(!hub.log().contains("panicked"), "{}", hub.log());
}

#[tokio::test]
async fn a_hub_that_closes_waits_for_no_idle_connection() {
    let lab = Lab::new();
    let mut hub = lab.hub("one").start().await;
    let mut kept = connect(&hub).await;
    let asking = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n";
    kept.write_all(asking).await.unwrap();
    let mut head = [0; 12];
    kept.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 404");
    let ended = hub.terminate();
    let (status, _) = tokio::join!(ended, rest(kept));
    assert!(status.success());
    assert!(!hub.log().contains("cut off"), "{}", hub.log());
}
