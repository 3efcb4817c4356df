//! `layerd sidecar -- buildkitd`: one process to whoever starts it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::harness::{
    Build, BuildKit, Gate, Lab, MULTISTAGE_STEPS, Outcome, Pair, layerd, tree, until,
};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

/// Waits until no process has this pid any more.
async fn gone(pid: Pid) {
    until("the process is gone", async || {
        test_kill_process(pid).is_err().then_some(())
    })
    .await;
}

/// The folders that a sidecar made for private sockets, and left.
fn private_folders(temporary: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(temporary).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("layerd-")
        })
        .collect()
}

/// Starts one that is not expected to live.
async fn failing(lab: &Lab, child: &[String]) -> Outcome {
    let listen = format!("unix://{}", lab.path("public.sock").display());
    let data = lab.path("data").display().to_string();
    let own = ["sidecar", "--listen", &listen, "--data-dir", &data, "--"].map(str::to_owned);
    let outcome = layerd(own.iter().chain(child)).await.failed();
    assert!(!outcome.stdout.contains("ready"), "{}", outcome.stdout);
    assert!(!lab.path("public.sock").exists());
    outcome
}

#[tokio::test]
async fn builds_have_their_cache_through_a_child_as_without_one() {
    let lab = Lab::new();
    let data = lab.path("data");
    let context = lab.context("multistage");
    let mut one = lab.pair("one", &data).await;
    let build = Build::of(&context).cache_to(TO);
    let build = build.output_folder(&lab.path("first"));
    let client = lab.buildx(one.address()).await;
    client.build(&build).await.ok().assert_no_warning();
    one.sidecar.terminate().await;

    let two = lab.pair("two", &data).await;
    let build = Build::of(&context).cache_from(FROM);
    let build = build.output_folder(&lab.path("second"));
    let outcome = lab.buildctl(two.address()).build(&build).await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
    assert_eq!(tree(&lab.path("first")), tree(&lab.path("second")));
    // What buildkitd prints is ours.
    assert!(two.sidecar.log().contains("found worker"));
}

#[tokio::test]
async fn told_to_end_it_ends_with_the_status_that_buildkitd_has_and_leaves_nothing() {
    let lab = Lab::new();
    let mut alone = lab.buildkitd("alone").start().await;
    let without = alone.stop().await;
    for signal in [Signal::TERM, Signal::INT] {
        let mut pair = lab.pair("one", &lab.path("data")).await;
        let (buildkitd, public) = (pair.sidecar.child(), pair.address().to_owned());
        assert_eq!(private_folders(&pair.buildkitd.temporary()).len(), 1);
        pair.sidecar.signal(signal);
        assert_eq!(pair.sidecar.ended().await, without);
        assert!(test_kill_process(buildkitd).is_err());
        assert!(!Path::new(public.trim_start_matches("unix://")).exists());
        assert!(private_folders(&pair.buildkitd.temporary()).is_empty());
    }
}

#[tokio::test]
async fn told_to_end_it_finishes_its_builds_first() {
    let lab = Lab::new();
    let data = lab.path("data");
    let mut one = lab.pair("one", &data).await;
    let gate = Gate::closed();
    let client = lab.buildx(one.address()).await;
    let build = Build::of(&lab.context("gate"))
        .argument(&gate.buildx_argument())
        .cache_to(TO);
    let end = async {
        one.buildkitd.until_busy().await;
        one.sidecar.signal(Signal::TERM);
        until("it has heard", async || {
            one.sidecar
                .log()
                .contains("finishing what runs")
                .then_some(())
        })
        .await;
        let _open = gate.open().await;
        one.sidecar.ended().await
    };
    let (status, outcome) = tokio::join!(end, client.build(&build));
    let outcome = outcome.ok();
    outcome.assert_no_warning();
    outcome.assert_told("as export 1");
    assert_eq!(status.signal(), None, "{status}");
}

#[tokio::test]
async fn told_twice_it_ends_at_once_and_buildkitd_cleans_up() {
    let lab = Lab::new();
    let mut one = lab.pair("one", &lab.path("data")).await;
    let client = lab.buildctl(one.address());
    let build = Build::of(&lab.context("slow"));
    let end = async {
        one.buildkitd.until_busy().await;
        let buildkitd = one.sidecar.child();
        one.sidecar.signal(Signal::TERM);
        until("it has heard", async || {
            one.sidecar
                .log()
                .contains("finishing what runs")
                .then_some(())
        })
        .await;
        one.sidecar.signal(Signal::TERM);
        let status = one.sidecar.ended().await;
        assert!(test_kill_process(buildkitd).is_err());
        status
    };
    let (status, outcome) = tokio::join!(end, client.build(&build));
    outcome.failed();
    // Its own end, not a kill.
    assert_eq!(status.code(), Some(1), "{status}\n{}", one.sidecar.log());
    assert!(!one.sidecar.log().contains("is killed"));
}

#[tokio::test]
async fn a_child_that_crashes_ends_the_pair_which_says_so() {
    let lab = Lab::new();
    let mut one = lab.pair("one", &lab.path("data")).await;
    let client = lab.buildctl(one.address());
    let build = Build::of(&lab.context("slow")).cache_to(TO);
    let crash = async {
        one.buildkitd.until_busy().await;
        kill_process(one.sidecar.child(), Signal::KILL).unwrap();
        one.sidecar.ended().await
    };
    let (status, outcome) = tokio::join!(crash, client.build(&build));
    outcome.failed();
    assert_eq!(status.code(), Some(137), "{status}");
    let log = one.sidecar.log();
    assert!(
        log.contains("buildkitd ended: signal: 9 (SIGKILL)"),
        "{log}"
    );
    assert!(private_folders(&one.buildkitd.temporary()).is_empty());
}

#[tokio::test]
async fn a_child_is_told_to_end_when_the_sidecar_is_killed() {
    let lab = Lab::new();
    let mut one = lab.pair("one", &lab.path("data")).await;
    let buildkitd = one.sidecar.child();
    one.sidecar.kill().await;
    gone(buildkitd).await;
    assert!(one.sidecar.log().contains("stopping server"));
}

#[tokio::test]
async fn a_child_that_cannot_start_gives_its_status_and_a_clear_line() {
    let lab = Lab::new();
    let mut flags = lab.buildkitd("one").command_line();
    flags.push("--no-such-flag".to_owned());
    let outcome = failing(&lab, &flags).await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("no-such-flag"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome
            .stderr
            .contains("buildkitd ended before it was ready: exit status: 1"),
        "{}",
        outcome.stderr
    );

    let outcome = failing(&lab, &["buildkitd-that-is-not-here".to_owned()]).await;
    assert_eq!(outcome.code, Some(127));
    assert!(
        outcome
            .stderr
            .contains("can't start buildkitd-that-is-not-here: No such file"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn any_exit_status_is_passed_on() {
    let lab = Lab::new();
    let shell = |script: &str| ["sh", "-c", script].map(str::to_owned);
    assert_eq!(failing(&lab, &shell("exit 42")).await.code, Some(42));
    let killed = failing(&lab, &shell("kill -SEGV $$")).await;
    assert_eq!(killed.code, Some(128 + 11));
    assert!(killed.stderr.contains("SIGSEGV"), "{}", killed.stderr);
}

#[tokio::test]
async fn other_signals_are_for_the_child() {
    let lab = Lab::new();
    // Go's own answers: it dies of the one, and of the other after it has
    // printed its stacks.
    let cases = [
        (Signal::HUP, 128 + 1, "SIGHUP"),
        (Signal::QUIT, 2, "SIGQUIT: quit"),
    ];
    for (signal, code, said) in cases {
        let mut one = lab.pair("one", &lab.path("data")).await;
        one.sidecar.signal(signal);
        let status: ExitStatus = one.sidecar.ended().await;
        let log = one.sidecar.log();
        assert_eq!(status.code(), Some(code), "{log}");
        assert!(log.contains(said), "{log}");
    }
}

#[tokio::test]
async fn a_mistake_on_the_command_line_is_one_of_usage() {
    let usage = async |arguments: &[&str], said: &str| {
        let outcome = layerd(["sidecar"].iter().chain(arguments)).await.failed();
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    };
    let own = ["--", "buildkitd", "--addr", "unix:///x.sock"];
    usage(&own, "say --listen to layerd instead").await;
    usage(&["--", "buildkitd", "--addr=tcp://[::]:1"], "--listen").await;
    let both = ["--buildkitd", "unix:///x.sock", "--", "buildkitd"];
    usage(&both, "cannot be used with").await;
}

/// A folder with `docker exec` as the one command that buildctl uses of it, for
/// a container whose first process is `first`; and buildctl, for in there.
fn docker(lab: &Lab, first: Pid) -> PathBuf {
    let folder = lab.folder("commands");
    let script = format!(
        "#!/bin/sh\nshift 3\nexec nsenter --target {} --mount --pid -- \"$@\"\n",
        first.as_raw_nonzero()
    );
    let docker = folder.join("docker");
    std::fs::write(&docker, script).unwrap();
    std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let buildctl = BuildKit::Current.command("buildctl");
    std::os::unix::fs::symlink(buildctl, folder.join("buildctl")).unwrap();
    folder
}

#[tokio::test]
async fn in_a_container_clients_find_it_where_buildkitd_would_be() {
    let lab = Lab::new();
    let sidecar = lab.sidecar("one").data_dir(&lab.path("data")).contained();
    let mut one = Pair::start(lab.buildkitd("one"), sidecar).await;
    assert_eq!(one.address(), "unix:///run/buildkit/buildkitd.sock");
    let first = one.sidecar.pid();
    // `docker exec -i one buildctl dial-stdio` is what this address means.
    let client = lab.buildctl("docker-container://one");
    let client = client.commands(&docker(&lab, first));
    let build = Build::of(&lab.context("multistage")).cache_to(TO);
    client.build(&build).await.ok().assert_told("as export 1");

    // Orphans of a container fall to its first process.
    let orphan = lab.path("orphan");
    let mut enter = tokio::process::Command::new("nsenter");
    let target = first.as_raw_nonzero().to_string();
    enter.args(["--target", &target, "--mount", "--pid", "--", "sh", "-c"]);
    enter.arg(format!("(sleep 0.2; echo > {}) &", orphan.display()));
    assert!(enter.status().await.unwrap().success());
    until("the orphan is done", async || orphan.exists().then_some(())).await;
    // A zombie would still be its child.
    until("it is waited for", async || {
        (one.sidecar.children().len() == 1).then_some(())
    })
    .await;

    one.sidecar.signal(Signal::TERM);
    assert_eq!(one.sidecar.ended().await.code(), Some(1));
}
