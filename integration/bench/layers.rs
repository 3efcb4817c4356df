//! The build that caches are measured with: `testdata/layers`.

use std::path::{Path, PathBuf};

use crate::Scale;
use crate::harness::{Build, Lab};

/// How many steps it has.
pub const STEPS: usize = 20;

/// It, as a paragraph of the page says it.
pub const ABOUT: &str =
    "`testdata/layers`: 20 steps in five stages, 20 layers, 100 MB that do not compress";

/// A copy of it, at its size for this run.
pub struct Layers {
    context: PathBuf,
    bytes: u64,
}

impl Layers {
    /// A copy in `lab`.
    pub fn new(lab: &Lab, scale: Scale) -> Self {
        let context = lab.context("layers");
        let bytes = if scale.quick { 100_000 } else { 5_500_000 };
        let dockerfile = context.join("Dockerfile");
        let text = std::fs::read_to_string(&dockerfile).expect("a Dockerfile");
        let text = text.replace("ARG BYTES=5500000", &format!("ARG BYTES={bytes}"));
        std::fs::write(dockerfile, text).expect("it takes that");
        Self { context, bytes }
    }

    /// It, to be built.
    pub fn build(&self) -> Build {
        Build::of(&self.context)
    }

    /// Panics unless this folder holds its result.
    pub fn assert_is_result(&self, folder: &Path) {
        for name in ["program", "pages"] {
            let length = folder.join(name).metadata().expect("a result").len();
            assert_eq!(length, self.bytes, "the length of {name}");
        }
    }
}
