//! A value that is made of files, and made anew when they change.
//!
//! Certificates and keys are rotated while a daemon runs. Whoever uses one asks
//! for it here each time: at most once a second the files are looked at, and
//! where their times, sizes or inodes differ they are read again. Files that
//! can't be used, because one is half written or its partner is still the old
//! one, leave the value as it was; the log says so once, and they are tried
//! again until they can be.
//!
//! Looking is a `stat` for each file in the caller's own thread, so these files
//! belong on a local file system.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How often files are looked at, at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads the files; an error is what to tell the operator.
type Read<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// The value, and the files that it comes from.
pub struct Watched<T> {
    paths: Vec<PathBuf>,
    read: Read<T>,
    value: RwLock<Arc<T>>,
    seen: Mutex<Seen>,
    opened: Instant,
    /// When to look again, in milliseconds since `opened`.
    due: AtomicU64,
}

/// What was known of the files when they were looked at last.
struct Seen {
    stamp: Stamp,
    complaint: Option<String>,
}

impl<T> Watched<T> {
    /// Reads `paths` for the first time, by `read`. A path may be a folder:
    /// then the files in it are watched.
    pub fn open<E: Display>(
        paths: impl IntoIterator<Item = PathBuf>,
        read: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let paths: Vec<_> = paths.into_iter().collect();
        // Before the files are read, so that a change meanwhile is not missed.
        let stamp = Stamp::of(&paths);
        let value = RwLock::new(Arc::new(read()?));
        Ok(Self {
            paths,
            read: Box::new(move || read().map_err(|error| error.to_string())),
            value,
            seen: Mutex::new(Seen {
                stamp,
                complaint: None,
            }),
            opened: Instant::now(),
            due: AtomicU64::new(millis(PAUSE)),
        })
    }

    /// The value as the files have it, or had it when they could last be used.
    pub fn current(&self) -> Arc<T> {
        let since = millis(self.opened.elapsed());
        let due = self.due.load(Ordering::Relaxed);
        let next = since + millis(PAUSE);
        // One caller looks; the others go on with what there is.
        if since >= due
            && self
                .due
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.look();
        }
        self.value
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Looks at the files now.
    pub fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(&self.paths);
        if seen.stamp == stamp && seen.complaint.is_none() {
            return;
        }
        let files = self.paths.iter().map(|path| path.display().to_string());
        let files = files.collect::<Vec<_>>().join(", ");
        match (self.read)() {
            Ok(value) => {
                *self.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                seen.complaint = None;
                tracing::info!(files, "read again after a change");
            }
            Err(why) => {
                if seen.complaint.as_ref() != Some(&why) {
                    tracing::warn!(
                        files,
                        why,
                        "changed, and can't be used as it is: what was read before stays in use"
                    );
                    seen.complaint = Some(why);
                }
            }
        }
        seen.stamp = stamp;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

/// What tells that files have changed, without reading them.
#[derive(PartialEq, Eq)]
struct Stamp(Vec<(PathBuf, Option<[i64; 5]>)>);

impl Stamp {
    fn of(paths: &[PathBuf]) -> Self {
        let mut stamps = Vec::new();
        for path in paths {
            stamps.push((path.clone(), stat(path)));
            // What can't be listed is no folder.
            let Ok(entries) = std::fs::read_dir(path) else {
                continue;
            };
            let mut inside: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            inside.sort();
            stamps.extend(inside.into_iter().map(|path| {
                let stat = stat(&path);
                (path, stat)
            }));
        }
        Self(stamps)
    }
}

/// Links are followed: a mounted secret is changed by turning one.
fn stat(path: &Path) -> Option<[i64; 5]> {
    let stat = std::fs::metadata(path).ok()?;
    let [device, inode, size] = [stat.dev(), stat.ino(), stat.size()].map(u64::cast_signed);
    Some([device, inode, size, stat.mtime(), stat.mtime_nsec()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(path: &Path) -> Watched<u64> {
        let file = path.to_owned();
        let read = move || match std::fs::read_to_string(&file) {
            Ok(text) => text
                .trim()
                .parse::<u64>()
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Watched::open([path.to_owned()], read).unwrap()
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("number");
        std::fs::write(&file, "1").unwrap();
        let watched = number(&file);
        for (text, value) in [
            (Some("22"), 22),
            (Some("broken"), 22),
            (None, 22),
            (Some("3"), 3),
        ] {
            match text {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            watched.look();
            assert_eq!(*watched.current(), value, "{text:?}");
        }
    }

    #[test]
    fn a_file_that_was_swapped_for_one_alike_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let [file, new] = ["number", "new"].map(|name| dir.path().join(name));
        std::fs::write(&file, "1").unwrap();
        let watched = number(&file);
        std::fs::write(&new, "2").unwrap();
        let times = std::fs::metadata(&file).unwrap().modified().unwrap();
        let opened = std::fs::File::options().write(true).open(&new).unwrap();
        opened.set_modified(times).unwrap();
        std::fs::rename(&new, &file).unwrap();
        watched.look();
        assert_eq!(*watched.current(), 2);
    }

    #[test]
    fn whoever_asks_often_looks_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("number");
        std::fs::write(&file, "1").unwrap();
        let watched = number(&file);
        std::fs::write(&file, "22").unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while *watched.current() != 22 {
            assert!(Instant::now() < deadline, "the change was never seen");
            std::thread::yield_now();
        }
    }

    #[test]
    fn files_that_come_to_a_folder_or_leave_it_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_owned();
        let count = move || std::fs::read_dir(&folder).map(Iterator::count);
        let watched = Watched::open([dir.path().to_owned()], count).unwrap();
        for (name, files) in [("a", 1), ("b", 2)] {
            std::fs::write(dir.path().join(name), "").unwrap();
            watched.look();
            assert_eq!(*watched.current(), files);
        }
        std::fs::remove_file(dir.path().join("a")).unwrap();
        watched.look();
        assert_eq!(*watched.current(), 1);
    }
}
