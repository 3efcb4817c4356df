//! Servers of objects, for tests of stores: S3 (versitygw) and Azure
//! (Azurite), on loopback ports.
//!
//! A process starts each once, for all of its tests; every test has a prefix
//! of its own. Whatever becomes of the process, the kernel then ends them.
//! Needs nothing of the harness but [`tools`], so that unit tests include it
//! by its path.

#[path = "tools.rs"]
#[allow(dead_code, reason = "only where a tool is, is asked here")]
#[allow(clippy::duplicate_mod, reason = "unit tests have no harness")]
mod tools;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use self::tools::{installed, pinned};

/// The bucket, its only user, and that user's secret.
const NAME: &str = "layerd";

/// How long a server may take to start.
const DEADLINE: Duration = Duration::from_secs(60);

/// Ends the server, and removes its folder, when told to end.
const GUARD: &str = r#"folder=$1; shift
trap 'kill "$server"; wait; rm -rf "$folder"; exit' TERM
"$@" & server=$!
wait "$server""#;

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Its address and port.
    pub host: String,
}

/// The S3 server of this process.
pub async fn s3() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    let start = async || {
        let version = pinned("VERSITYGW_VERSION");
        let program = installed(&format!("versitygw-{version}"), "versitygw");
        start(|host, folder| {
            let store = folder.join("store");
            // A folder there is a bucket.
            std::fs::create_dir_all(store.join(NAME)).expect("a folder");
            let mut command = Command::new(program);
            command
                .args(["--port", host, "--access", NAME, "--secret", NAME])
                .args(["--quiet", "posix"])
                .arg(store);
            command
        })
        .await
    };
    SERVER.get_or_init(start).await
}

/// The Azure server of this process.
pub async fn azure() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    let start = async || {
        let version = pinned("AZURITE_VERSION");
        let program = installed(&format!("azurite-{version}"), "azurite-blob");
        let server = start(|host, folder| {
            let (address, port) = host.split_once(':').expect("a port");
            let mut command = Command::new(program);
            command
                .args(["--blobHost", address, "--blobPort", port, "--location"])
                .arg(folder)
                .args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"])
                .env("AZURITE_ACCOUNTS", format!("{NAME}:{}", azure_key()));
            command
        })
        .await;
        create_container(&server.host).await;
        server
    };
    SERVER.get_or_init(start).await
}

impl Server {
    /// The address of a store in the S3 server.
    pub fn s3_store(&self, prefix: &str) -> String {
        Self::s3_store_at(&self.host, prefix)
    }

    /// The same, where `host` leads to it.
    pub fn s3_store_at(host: &str, prefix: &str) -> String {
        format!(
            "s3://{NAME}/{prefix}?endpoint=http://{host}&region=us-east-1&allow_http=true\
             &access_key_id={NAME}&secret_access_key={NAME}"
        )
    }

    /// The address of a store in the Azure server.
    pub fn azure_store(&self, prefix: &str) -> String {
        format!(
            "az://{NAME}/{prefix}?endpoint=http://{}/{NAME}&allow_http=true\
             &account_name={NAME}&access_key={}",
            self.host,
            azure_key()
        )
    }
}

/// A key that needs no escaping in an address.
fn azure_key() -> String {
    BASE64.encode(NAME.repeat(8))
}

async fn start(command: impl FnOnce(&str, &Path) -> Command) -> Server {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let host = free.local_addr().expect("its address").to_string();
    drop(free);
    let folder = tempfile::tempdir().expect("a folder").keep();
    let server = command(&host, &folder);
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    let mut guarded = Command::new("setpriv");
    guarded
        .args(["--pdeathsig", "TERM", "--", "sh", "-c", GUARD, "sh"])
        .arg(&folder)
        .arg(server.get_program())
        .args(server.get_args())
        .envs(
            server
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    // The kernel's signal comes at the end of the thread that started it: one
    // that ends with the process.
    std::thread::spawn(move || {
        let mut child = guarded.spawn().expect("setpriv, of util-linux");
        let status = child.wait();
        eprintln!("a server of objects ended: {status:?}");
    });
    let connecting = async {
        while TcpStream::connect(&host).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let connected = tokio::time::timeout(DEADLINE, connecting).await;
    let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    assert!(connected.is_ok(), "no connection to {host}:\n{}", log());
    Server { host }
}

/// One plain HTTP/1.1 request: the status, and the body.
pub async fn http(host: &str, head: &str) -> (u16, Vec<u8>) {
    let mut connection = TcpStream::connect(host).await.expect("a connection");
    let request = format!("{head}\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let sent = connection.write_all(request.as_bytes()).await;
    sent.expect("it takes a request");
    let mut answer = Vec::new();
    let read = connection.read_to_end(&mut answer).await;
    read.expect("an answer");
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n");
    let body = answer.split_off(end.expect("a head") + 4);
    let head = String::from_utf8(answer).expect("a head of text");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a number"), body)
}

/// Azurite has no container of its own accord. Signed as "Authorize with
/// Shared Key" of the Azure Storage REST API says.
async fn create_container(host: &str) {
    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
    let headers = format!("x-ms-date:{date}\nx-ms-version:2021-08-06");
    let blank = "\n".repeat(12);
    let signed = format!("PUT{blank}{headers}\n/{NAME}/{NAME}/{NAME}\nrestype:container");
    let key = BASE64.decode(azure_key()).expect("a key");
    let signature = BASE64.encode(hmac(&key, signed.as_bytes()));
    let head = format!(
        "PUT /{NAME}/{NAME}?restype=container HTTP/1.1\r\n{}\r\nContent-Length: 0\r\n\
         Authorization: SharedKey {NAME}:{signature}",
        headers.replace('\n', "\r\n"),
    );
    let (status, body) = http(host, &head).await;
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
}

/// HMAC-SHA256 with a key of one block at most.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message);
    let outer = Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner.finalize());
    outer.finalize().to_vec()
}
