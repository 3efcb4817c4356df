//! What a folder holds, for comparing the results of two builds.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Every entry below `root`: its path, and its mode and content (a link's is
/// its target).
pub fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.expect("an entry").path();
            let about = path.symlink_metadata().expect("it is there");
            let content = if about.is_symlink() {
                path.read_link()
                    .expect("a link")
                    .into_os_string()
                    .into_encoded_bytes()
            } else if about.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else {
                std::fs::read(&path).expect("a file")
            };
            let name = path
                .strip_prefix(root)
                .expect("it is below the root")
                .to_owned();
            found.insert(name, (about.permissions().mode(), content));
        }
    }
    found
}
