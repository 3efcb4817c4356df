//! With what a hub starts, and with what it refuses to.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::harness::{Lab, Outcome, layerd};

async fn check(arguments: &[&str]) -> Outcome {
    layerd(["serve", "--check-config"].iter().chain(arguments)).await
}

#[tokio::test]
async fn a_hub_that_others_reach_wants_to_be_told_who_may_use_it() {
    let lab = Lab::new();
    let key = lab.path("ci.pem").display().to_string();
    layerd(["token", "key", "-o", &key]).await.ok();
    let data = lab.path("data").display().to_string();
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let open = ["--listen", listen, "--data-dir", &data];
        let refused = check(&open).await.failed();
        assert!(refused.stderr.contains("--auth token"), "{refused:?}");
        assert!(!lab.path("data").exists(), "something was made already");
    }
    let open = ["--listen", "0.0.0.0:0", "--data-dir", &data];
    for more in [
        &["--auth", "none"][..],
        &["--auth", "token", "--token-key-file", &key],
        &["--token-key-file", &key],
    ] {
        check(&[&open[..], more].concat()).await.ok();
    }
    for (more, why) in [
        (&["--auth", "token"][..], "--token-key-file"),
        (
            &["--auth", "none", "--token-key-file", &key],
            "--auth token",
        ),
        (
            &["--auth", "token", "--token-key-file", "/nowhere"],
            "/nowhere",
        ),
    ] {
        let refused = check(&[&open[..], more].concat()).await.failed();
        let misused = more.iter().all(|part| !part.contains("/nowhere"));
        assert_eq!(
            refused.code,
            Some(if misused { 2 } else { 1 }),
            "{refused:?}"
        );
        assert!(refused.stderr.contains(why), "{refused:?}");
    }
}

#[tokio::test]
async fn a_check_says_what_is_reached_and_what_is_not() {
    let lab = Lab::new();
    let data = lab.path("data").display().to_string();
    let well = check(&["--data-dir", &data]).await.ok().stdout;
    let lines: Vec<_> = well.lines().collect();
    assert!(
        matches!(lines[..], [listen, catalog, blobs]
            if listen.starts_with("listen ") && listen.ends_with(": ok")
            && catalog.starts_with("catalog ") && catalog.ends_with(": ok")
            && blobs.starts_with("blobs ") && blobs.ends_with(": ok")),
        "{well}"
    );
    assert!(!lab.path("data").exists(), "something was made");
    let gone = [
        "--catalog",
        "postgres://layerd:opensesame@127.0.0.1:1/layerd",
        "--blobs",
        "s3://bucket/x?endpoint=http://127.0.0.1:1&region=r&allow_http=true&access_key_id=a&secret_access_key=opensesame",
    ];
    let failed = check(&gone).await.failed();
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains("catalog "), "{failed:?}");
    assert!(failed.stdout.contains("blobs "), "{failed:?}");
    let well: Vec<_> = failed
        .stdout
        .lines()
        .filter(|line| line.ends_with(": ok"))
        .collect();
    assert!(
        matches!(well[..], [listen] if listen.starts_with("listen ")),
        "{failed:?}"
    );
    let all = failed.stdout + &failed.stderr;
    assert!(!all.contains("opensesame"), "a secret is shown: {all}");
    let usage = check(&["--data-dir", &data, "--max-uploads", "0"]).await;
    assert_eq!(usage.code, Some(2), "{usage:?}");
}

/// Every file there, with when it was written; what readers of a log share of
/// their memory apart.
fn files(dir: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => {
                let modified = path.metadata().unwrap().modified().unwrap();
                files.push((path, modified));
            }
        }
    }
    files.retain(|(path, _)| !path.to_string_lossy().ends_with("-shm"));
    files.sort_unstable();
    files
}

#[tokio::test]
async fn a_check_says_of_layers_of_another_catalog_what_a_hub_would_say() {
    let lab = Lab::new();
    let mut dirs = Vec::new();
    for name in ["one", "other"] {
        let mut hub = lab.hub(name).start().await;
        hub.terminate().await;
        dirs.push(hub.data_dir().to_owned());
    }
    let [one, other] = &dirs[..] else {
        unreachable!("there are two")
    };
    let data = one.display().to_string();
    check(&["--data-dir", &data]).await.ok();
    std::fs::copy(other.join("blobs/store-id"), one.join("blobs/store-id")).unwrap();
    let before = files(one);
    let checked = check(&["--data-dir", &data]).await.failed();
    assert_eq!(files(one), before, "something was written");
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let told = checked.stdout.lines().find_map(|line| {
        let (_, told) = line.split_once("the layers here belong to another catalog: ")?;
        line.starts_with("blobs ").then_some(told)
    });
    let told = told.unwrap_or_else(|| panic!("{checked:?}"));
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let refused = layerd(serve).await.failed();
    assert!(refused.stderr.contains(told), "{refused:?}");
    // A new catalog has nothing to do with it, either.
    std::fs::remove_file(one.join("catalog.db")).unwrap();
    let checked = check(&["--data-dir", &data]).await.failed();
    assert!(checked.stdout.contains("belong to another"), "{checked:?}");
    assert!(!one.join("catalog.db").exists(), "something was made");
}
