//! Blobs through a hub, beside the raw speed of what carries them.

mod client;
mod files;
mod look_up;
mod shape;
mod stream;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use futures::future::join_all;
use layerd::cache::wire::CacheClient;
use tonic::transport::Channel;

use self::files::Files;
pub use self::look_up::measure as look_up;
use self::shape::{Blob, Shape};
use self::stream::Stream;
pub use self::stream::run as stream;
use crate::Scale;
use crate::harness::{Hub, Lab};
use crate::s3::S3;
use crate::samples::Unit;
use crate::section::Section;
use crate::turns::turns;

/// A way for blobs to go, one way or the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    ReadFile,
    ReadStream,
    ReadApart,
    ReadPlain,
    ReadHttp,
    ReadHub,
    ReadBucket,
    ReadUrl,
    WriteFile,
    WriteStream,
    WriteHttp,
    WriteHub,
    WriteBucket,
}

impl Way {
    const READS: [Self; 8] = [
        Self::ReadFile,
        Self::ReadStream,
        Self::ReadApart,
        Self::ReadPlain,
        Self::ReadHttp,
        Self::ReadHub,
        Self::ReadBucket,
        Self::ReadUrl,
    ];
    /// Each makes what the read of the same name needs.
    const WRITES: [Self; 5] = [
        Self::WriteFile,
        Self::WriteStream,
        Self::WriteHttp,
        Self::WriteHub,
        Self::WriteBucket,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::ReadFile => "read: a file, no network",
            Self::ReadStream => "read: a tonic stream out of memory",
            Self::ReadApart => "read: the same, in a process of its own",
            Self::ReadPlain => "read: a tonic stream out of files, likewise",
            Self::ReadHttp => "read: hyper, GET of a file",
            Self::ReadHub => "read: hub, disk",
            Self::ReadBucket => "read: hub, S3",
            Self::ReadUrl => "read: S3, by the URL that the hub gave",
            Self::WriteFile => "write: a file, hashed, no network",
            Self::WriteStream => "write: a tonic stream, forgotten",
            Self::WriteHttp => "write: hyper, PUT of a file, hashed",
            Self::WriteHub => "write: hub, disk",
            Self::WriteBucket => "write: hub, S3",
        }
    }

    /// HTTP/1.1 has one body at a time on a connection, and a file has none.
    fn takes(self, shape: Shape) -> bool {
        let streams = matches!(
            self,
            Self::ReadStream
                | Self::ReadApart
                | Self::ReadPlain
                | Self::ReadHub
                | Self::ReadBucket
                | Self::WriteStream
                | Self::WriteHub
                | Self::WriteBucket
        );
        streams || shape != Shape::Streams
    }
}

/// Every way with every shape.
pub async fn measure(scale: Scale) -> Section {
    let about = format!(
        "{} MB that do not compress, in one blob or in eight, to `layerd serve` and back, by a \
         client that has a sidecar's windows and looks at every checksum. Beside it, on the same \
         loopback and disk and with the same client: a tonic service that gives the same messages \
         out of memory, one piece again and again, and forgets those that it gets; it runs in the \
         client's process, and once more in a process of its own, as a hub does; the same service \
         in a process of its own with the hub's files, as tokio reads them; hyper with files and \
         HTTP/1.1; and the files alone. None of those has a checksum. Whatever writes to the disk \
         hashes, and ends once all is durable. Reads find the page cache warm. S3 is versitygw on \
         the same disk, and makes nothing durable.",
        shape::bytes(scale) / 1_000_000
    );
    let rows = [Way::READS.as_slice(), &Way::WRITES].concat();
    let rows: Vec<_> = rows.into_iter().map(Way::name).collect();
    let columns = Shape::ALL.map(Shape::name);
    let mut section = Section::new("Blobs through a hub", about, &columns, &rows);
    for _ in 0..scale.rounds {
        round(scale, &mut section).await;
    }
    let limit = 1.25;
    for (what, raw, hub, shape) in [
        (
            "read, time of the tonic stream's: one blob",
            Way::ReadStream,
            Way::ReadHub,
            Shape::One,
        ),
        (
            "read, time of the tonic stream's: eight, one connection",
            Way::ReadStream,
            Way::ReadHub,
            Shape::Streams,
        ),
        (
            "read, time of the tonic stream's: eight connections",
            Way::ReadStream,
            Way::ReadHub,
            Shape::Clients,
        ),
        (
            "read, time of the stream's out of files: one blob",
            Way::ReadPlain,
            Way::ReadHub,
            Shape::One,
        ),
        (
            "read, time of the stream's out of files: eight, one connection",
            Way::ReadPlain,
            Way::ReadHub,
            Shape::Streams,
        ),
        (
            "read, time of the stream's out of files: eight connections",
            Way::ReadPlain,
            Way::ReadHub,
            Shape::Clients,
        ),
        (
            "read, time of the GET's: one blob",
            Way::ReadHttp,
            Way::ReadHub,
            Shape::One,
        ),
        (
            "read, time of the GET's: eight connections",
            Way::ReadHttp,
            Way::ReadHub,
            Shape::Clients,
        ),
        (
            "write, time of the PUT's: one blob",
            Way::WriteHttp,
            Way::WriteHub,
            Shape::One,
        ),
        (
            "write, time of the PUT's: eight connections",
            Way::WriteHttp,
            Way::WriteHub,
            Shape::Clients,
        ),
    ] {
        let [raw, hub] = [raw, hub].map(|way| section.median(way.name(), shape.name()));
        section.goal(what, raw / hub, limit);
    }
    section
}

/// What serves in one round.
struct Servers {
    stream: Stream,
    apart: Stream,
    plain: Stream,
    files: Files,
    hub: Hub,
    bucket: Hub,
    folder: PathBuf,
}

async fn round(scale: Scale, section: &mut Section) {
    let lab = Lab::new();
    let s3 = S3::start(lab.folder("s3")).await;
    let folder = lab.folder("files");
    let data = lab.folder("data");
    let stored = data.join("blobs/sha256");
    let bucket = lab.hub("bucket").arguments(["--blobs", &s3.store("hub")]);
    let servers = Servers {
        stream: Stream::start().await,
        apart: Stream::start_apart(&lab.path("apart.log"), None).await,
        plain: Stream::start_apart(&lab.path("plain.log"), Some(&stored)).await,
        files: Files::start(folder.clone()).await,
        hub: lab.hub("disk").data_dir(&data).start().await,
        bucket: bucket.start().await,
        folder,
    };
    let once = Scale { rounds: 1, ..scale };
    for shape in turns(once, &Shape::ALL) {
        let mut blobs = BTreeMap::new();
        for way in turns(once, &Way::WRITES) {
            let fresh = shape.blobs(scale);
            if way.takes(shape) {
                servers.timed(way, shape, &fresh, section).await;
            }
            blobs.insert(way, fresh);
        }
        for way in turns(once, &Way::READS) {
            if way.takes(shape) {
                let wrote = match way {
                    Way::ReadBucket | Way::ReadUrl => Way::WriteBucket,
                    Way::ReadHub | Way::ReadPlain => Way::WriteHub,
                    Way::ReadHttp => Way::WriteHttp,
                    _ => Way::WriteFile,
                };
                servers.timed(way, shape, &blobs[&wrote], section).await;
            }
        }
    }
}

impl Servers {
    async fn timed(&self, way: Way, shape: Shape, blobs: &[Blob], section: &mut Section) {
        let mut clients = Vec::new();
        for _ in 0..shape.connections() {
            clients.push(client::connect(self.url(way)).await);
        }
        let mut urls = Vec::new();
        for blob in blobs {
            urls.push(match way {
                Way::ReadUrl => client::located(clients[0].clone(), blob).await,
                _ => self.files.url(blob),
            });
        }
        rustix::fs::sync();
        let began = Instant::now();
        let moving = blobs.iter().zip(urls).enumerate().map(|(at, (blob, url))| {
            let client = clients[at % clients.len()].clone();
            tokio::spawn(self.moving(way, client, blob.clone(), url))
        });
        for moved in join_all(moving).await {
            moved.expect("it is moved");
        }
        let took = began.elapsed().as_secs_f64();
        let bytes: usize = blobs.iter().map(|blob| blob.content.len()).sum();
        let speed = bytes as f64 / 1e6 / took;
        section.figure(way.name(), shape.name(), Unit::Speed, speed);
    }

    fn url(&self, way: Way) -> &str {
        match way {
            Way::ReadHub | Way::WriteHub => self.hub.url(),
            Way::ReadBucket | Way::WriteBucket | Way::ReadUrl => self.bucket.url(),
            Way::ReadApart => &self.apart.url,
            Way::ReadPlain => &self.plain.url,
            _ => &self.stream.url,
        }
    }

    fn moving(
        &self,
        way: Way,
        client: CacheClient<Channel>,
        blob: Blob,
        url: String,
    ) -> futures::future::BoxFuture<'static, ()> {
        let path = files::file(&self.folder, &blob);
        match way {
            Way::ReadFile => Box::pin(files::load(path, blob)),
            Way::ReadHttp | Way::ReadUrl => Box::pin(files::get(url, blob)),
            Way::ReadStream | Way::ReadApart | Way::ReadPlain | Way::ReadHub | Way::ReadBucket => {
                Box::pin(client::read(client, blob))
            }
            Way::WriteFile => Box::pin(files::save(path, blob)),
            Way::WriteHttp => Box::pin(files::put(url, blob)),
            Way::WriteStream | Way::WriteHub | Way::WriteBucket => {
                Box::pin(client::write(client, blob))
            }
        }
    }
}
