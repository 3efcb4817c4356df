//! The build contexts of `testdata/`, copied so that a test may change them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// How many steps `testdata/multistage` has.
pub const MULTISTAGE_STEPS: usize = 10;

/// Copies `testdata/<name>` below `into`, with the base file system beside its
/// Dockerfile.
pub fn copy(name: &str, into: &Path) -> PathBuf {
    let target = copy_alone(name, into);
    std::fs::copy(base(), target.join("base.tar")).expect("the base goes into the context");
    target
}

/// Copies `testdata/<name>` below `into`, and nothing else.
pub fn copy_alone(name: &str, into: &Path) -> PathBuf {
    let source = testdata().join(name);
    let target = into.join(name);
    run(Command::new("cp").arg("-r").arg(&source).arg(&target));
    target
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// The base file system, made once per run of the tests.
fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let out =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("base-{}.tar", std::process::id()));
        run(Command::new(testdata().join("make-base.sh")).arg(&out));
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("base.tar");
        std::fs::rename(&out, &kept).expect("a rename in one folder");
        kept
    })
}

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
