//! Mounts that a test makes, and those that a killed daemon leaves.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

/// A mount that is gone when this is dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// A small disk of its own: a tmpfs of `bytes`.
    pub fn small_disk(at: &Path, bytes: u64) -> Self {
        std::fs::create_dir_all(at).expect("a mount point");
        let options = CString::new(format!("size={bytes}")).expect("no zero byte");
        mount(
            "tmpfs",
            at,
            "tmpfs",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .expect("a tmpfs (needs root)");
        Self(at.to_owned())
    }

    /// Shows `source` at `at`, read-only.
    pub fn read_only(source: &Path, at: &Path) -> Self {
        std::fs::create_dir_all(at).expect("a mount point");
        mount_bind(source, at).expect("a bind mount (needs root)");
        let mounted = Self(at.to_owned());
        mount_remount(at, MountFlags::BIND | MountFlags::RDONLY, "").expect("a read-only remount");
        mounted
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a daemon of the same test may still hold files open there.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Unmounts all that is mounted below `root`, deepest first.
pub fn unmount_below(root: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut below: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|at| Path::new(at).starts_with(root))
        .collect();
    below.sort_unstable();
    for at in below.iter().rev() {
        let _ = unmount(*at, UnmountFlags::DETACH);
    }
}
