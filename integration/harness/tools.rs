//! Where the pinned tools are, as `integration/tools/install.sh` leaves them.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

const VERSIONS: &str = include_str!("../tools/versions.env");

/// A version of BuildKit that the tests run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildKit {
    /// The one that layerd is developed against.
    Current,
    /// An old one that is still met.
    Old,
}

impl BuildKit {
    /// Its version, `v0.32.2`.
    pub fn version(self) -> &'static str {
        match self {
            Self::Current => pinned("BUILDKIT_VERSION"),
            Self::Old => pinned("BUILDKIT_OLD_VERSION"),
        }
    }

    /// A command of this version.
    pub fn command(self, name: &str) -> PathBuf {
        installed(&format!("buildkit-{}", self.version()), name)
    }
}

/// The buildx command.
pub fn buildx() -> PathBuf {
    installed(&format!("buildx-{}", pinned("BUILDX_VERSION")), "buildx")
}

/// The command that knows what BuildKit makes of a cache config, as built from
/// the sources that are here now.
pub fn oracle() -> PathBuf {
    installed(&format!("oracle-{}", oracle_version()), "oracle")
}

/// The current buildkitd, but for whose signatures count.
pub fn trusting_buildkitd() -> PathBuf {
    let source = include_bytes!("../tools/trusting/trusting.go");
    let hash = hex::encode(Sha256::digest(source));
    let version = BuildKit::Current.version();
    let folder = format!("trusting-buildkitd-{version}-{}", &hash[..16]);
    installed(&folder, "buildkitd")
}

/// The start of a hash of all that the oracle is built from, as
/// `integration/tools/install.sh` makes it.
fn oracle_version() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/oracle");
    let entries = std::fs::read_dir(&folder).expect("the oracle's folder");
    let mut sources: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("go" | "mod" | "sum"))
        })
        .collect();
    sources.sort();
    let mut hash = Sha256::new();
    for source in sources {
        hash.update(std::fs::read(source).expect("a source"));
    }
    hex::encode(hash.finalize())[..16].to_owned()
}

/// The library that changes what time it is, where Debian has it: in a folder of
/// each architecture.
pub fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib");
    let mut libraries = folders
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    let found = libraries.find(|library| library.exists());
    found.expect("libfaketime is there: run integration/tools/install.sh test")
}

/// What `versions.env` says of `key`.
pub fn pinned(key: &str) -> &'static str {
    VERSIONS
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("versions.env does not pin {key}"))
}

/// A command in a folder of the tools, which must be there.
pub fn installed(folder: &str, name: &str) -> PathBuf {
    let tools = std::env::var_os("LAYERD_TOOLS")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let home = std::env::var_os("HOME").expect("HOME is set");
            PathBuf::from(home).join(".cache/layerd/tools")
        });
    let path = tools.join(folder).join(name);
    assert!(
        path.exists(),
        "{} is missing: run integration/tools/install.sh",
        path.display()
    );
    path
}
