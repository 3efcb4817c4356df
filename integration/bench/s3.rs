//! An S3 server on a loopback port: versitygw, on a folder.

use std::path::PathBuf;
use std::process::Command;

use tokio::net::TcpStream;

use crate::harness::lab::free_port;
use crate::harness::process::Process;
use crate::harness::tools::{installed, pinned};
use crate::harness::until;

const BUCKET: &str = "cache";
/// Both the name and the secret of its only user.
const USER: &str = "benchmark";

/// A running server with one bucket.
pub struct S3 {
    _process: Process,
    host: String,
}

impl S3 {
    /// Starts one that keeps everything in `folder`.
    pub async fn start(folder: PathBuf) -> Self {
        let host = format!("127.0.0.1:{}", free_port());
        let store = folder.join("store");
        // A folder there is a bucket.
        std::fs::create_dir_all(store.join(BUCKET)).expect("a folder");
        let program = installed(
            &format!("versitygw-{}", pinned("VERSITYGW_VERSION")),
            "versitygw",
        );
        let mut command = Command::new(program);
        command
            .args(["--port", &host, "--access", USER, "--secret", USER])
            .arg("--quiet")
            .arg("posix")
            .arg(store);
        let mut process = Process::spawn("versitygw", &command, &folder.join("versitygw.log"));
        until("the S3 server accepts connections", async || {
            process.assert_running();
            TcpStream::connect(&host).await.ok()
        })
        .await;
        Self {
            _process: process,
            host,
        }
    }

    /// The address of a store in it, with all that layerd has to know of it.
    pub fn store(&self, prefix: &str) -> String {
        format!(
            "s3://{BUCKET}/{prefix}?endpoint=http://{}&region=us-east-1&allow_http=true\
             &access_key_id={USER}&secret_access_key={USER}",
            self.host
        )
    }

    /// `type=s3` with all that BuildKit has to know of it.
    pub fn entry(&self, name: &str) -> String {
        format!(
            "type=s3,bucket={BUCKET},region=us-east-1,name={name},endpoint_url=http://{},\
             use_path_style=true,access_key_id={USER},secret_access_key={USER}",
            self.host
        )
    }
}
