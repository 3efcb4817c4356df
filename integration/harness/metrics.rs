//! What a sidecar shows to operators, over plain HTTP.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Sidecar;

/// The status and the body of `GET http://address/path`.
pub async fn get(address: &str, path: &str) -> (u16, String) {
    get_as(address, path, "*/*").await
}

/// The same, as one of the media types in `accept`.
pub async fn get_as(address: &str, path: &str, accept: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it takes a request");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

/// The values of every series at one moment.
#[derive(Debug)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Those of a sidecar, now.
    pub async fn of(sidecar: &Sidecar) -> Self {
        Self::at(sidecar.metrics.as_deref().expect("it shows metrics")).await
    }

    /// Those at HOST:PORT, now.
    pub async fn at(address: &str) -> Self {
        let (status, text) = get(address, "/metrics").await;
        assert_eq!(status, 200, "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let values = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a series and its value");
            (series.to_owned(), value.parse().expect("a number"))
        });
        Self(values.collect())
    }

    /// One series, written as `name{label="value"}`.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        let value = self.0.get(series);
        *value.unwrap_or_else(|| panic!("no {series} in {self:#?}"))
    }

    /// The sum of all series of a metric.
    pub fn sum(&self, name: &str) -> f64 {
        let series = self.0.iter().filter(|(series, _)| {
            series
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        });
        series.map(|(_, value)| value).sum()
    }
}
