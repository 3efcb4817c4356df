//! The caches that are compared, and where each keeps what a build left.

use std::path::PathBuf;

use crate::cold::Store;
use crate::harness::{Build, Hub, Lab, Registry, runtime_token};
use crate::s3::S3;

/// A way to keep a build's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Not at all.
    None,
    /// In the image itself.
    Inline,
    /// As an image of its own in a registry.
    Registry,
    /// In a folder of the client.
    Local,
    /// In a bucket.
    S3,
    /// With a server of GitHub's protocol, which is layerd's hub here.
    Gha,
    /// In layerd's data directory, imported over the session.
    Session,
    /// The same, pulled from the sidecar.
    Pull,
    /// In a hub: a cold runner's sidecar has nothing either.
    Hub,
}

impl Kind {
    /// As the page names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Inline => "`inline`",
            Self::Registry => "`registry`",
            Self::Local => "`local`",
            Self::S3 => "`s3`",
            Self::Gha => "`gha`, of a layerd hub",
            Self::Session => "`gha-compatible`, session",
            Self::Pull => "`gha-compatible`",
            Self::Hub => "`gha-compatible`, of a hub",
        }
    }

    /// Whether a sidecar serves it.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Session | Self::Pull | Self::Hub)
    }
}

/// A server of each kind, on one disk.
pub struct Peers {
    registry: Registry,
    s3: S3,
    local: PathBuf,
    /// The data directory of the sidecars that share one.
    pub data: PathBuf,
    /// The hub of those that have one, and of `gha`.
    pub hub: Hub,
}

impl Peers {
    /// Starts what has to be started.
    pub async fn start(lab: &Lab) -> Self {
        Self {
            registry: lab.registry().await,
            s3: S3::start(lab.folder("s3")).await,
            local: lab.folder("local"),
            data: lab.folder("data"),
            hub: lab.hub("hub").start().await,
        }
    }

    /// Where the sidecars of this kind keep what builds leave.
    pub fn store(&self, kind: Kind) -> Store<'_> {
        match kind {
            Kind::Hub => Store::Hub(self.hub.url()),
            _ => Store::Shared(&self.data),
        }
    }

    /// A build, with all its stages exported to `place` of this kind. `inline`
    /// has only those of the result, and replaces the output.
    pub fn export(&self, kind: Kind, place: &str, build: Build) -> Build {
        let entry = match kind {
            Kind::None => return build,
            Kind::Inline => {
                let image = self.registry.image(&format!("inline-{place}"));
                let output = format!("type=image,name={image},push=true,registry.insecure=true");
                return build.cache_to("type=inline").output(&output);
            }
            Kind::Registry => self.registry_entry(place),
            Kind::Local => format!("type=local,dest={}", self.local.join(place).display()),
            Kind::S3 => self.s3.entry(place),
            Kind::Gha => self.gha_entry(place),
            Kind::Session | Kind::Pull | Kind::Hub => ours(place),
        };
        build.cache_to(&format!("{entry},mode=max"))
    }

    /// A build that imports what stands in `place` of this kind.
    pub fn import(&self, kind: Kind, place: &str, build: Build) -> Build {
        let entry = match kind {
            Kind::None => return build,
            Kind::Inline => self.registry_entry(&format!("inline-{place}")),
            Kind::Registry => self.registry_entry(place),
            Kind::Local => format!("type=local,src={}", self.local.join(place).display()),
            Kind::S3 => self.s3.entry(place),
            Kind::Gha => self.gha_entry(place),
            Kind::Session | Kind::Pull | Kind::Hub => ours(place),
        };
        build.cache_from(&entry)
    }

    fn gha_entry(&self, place: &str) -> String {
        let url = self.hub.url();
        let token = runtime_token("bench-gha", &[("refs/heads/main", 3)]);
        format!("type=gha,url={url}/,url_v2={url}/,token={token},version=2,scope={place}")
    }

    fn registry_entry(&self, place: &str) -> String {
        format!("type=registry,ref={}", self.registry.image(place))
    }
}

fn ours(place: &str) -> String {
    format!("type=gha-compatible,project=bench,scope={place}")
}
