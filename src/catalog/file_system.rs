//! Whether a directory is on a network file system.
//!
//! SQLite's write-ahead log shares memory between processes and leans on file
//! locks; across the hosts of a network file system neither holds, and the
//! catalog can be damaged. So the directory is asked before it is used.

use std::io;
use std::path::Path;

use rustix::fs::StatFs;

/// File systems whose files other hosts may have open, by the magic number of
/// statfs(2) (linux/magic.h, and the sources of ceph, 9p and lustre).
const NETWORK: [(u32, &str); 12] = [
    (0x0000_6969, "NFS"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x0000_517B, "SMB"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "Ceph"),
    (0x6573_5546, "FUSE"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x0BD0_0BD0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
];

/// The kind of network file system that holds `dir` or, where it does not
/// exist yet, the directory that it would be made in; `None` for a local one.
pub fn network_file_system(dir: &Path) -> io::Result<Option<&'static str>> {
    let mut nearest = std::path::absolute(dir)?;
    while !nearest.exists() && nearest.pop() {}
    Ok(kind(&rustix::fs::statfs(&nearest)?))
}

fn kind(found: &StatFs) -> Option<&'static str> {
    // The magic is 32 bits in a field that some platforms sign-extend.
    let magic = found.f_type as u32;
    NETWORK
        .iter()
        .find(|(network, _)| *network == magic)
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_is_local_also_before_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(network_file_system(dir.path()).unwrap(), None);
        assert_eq!(
            network_file_system(&dir.path().join("not/yet/there")).unwrap(),
            None
        );
    }

    #[test]
    fn the_magic_of_nfs_is_known() {
        let mut found = rustix::fs::statfs("/").unwrap();
        found.f_type = 0x6969;
        assert_eq!(kind(&found), Some("NFS"));
    }
}
