//! What a client asks of buildkitd comes back through the sidecar as without
//! it: every verb, secrets, forwarded sockets.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Build, Client, Lab, Runner, until};

/// A runner whose daemon has built something, and the clients that see it
/// through the sidecar and directly.
struct Built {
    runner: Runner,
    lab: Lab,
}

impl Built {
    async fn new() -> Self {
        let lab = Lab::new();
        let runner = lab.runner("one", &lab.path("data")).await;
        let build = Build::of(&lab.context("multistage"));
        lab.buildx(runner.address()).await.build(&build).await.ok();
        Self { runner, lab }
    }

    async fn buildx(&self) -> [Client; 2] {
        [
            self.lab.buildx(self.runner.address()).await,
            self.lab.buildx(&self.runner.buildkitd.address).await,
        ]
    }

    fn buildctl(&self) -> [Client; 2] {
        [
            self.lab.buildctl(self.runner.address()),
            self.lab.buildctl(&self.runner.buildkitd.address),
        ]
    }

    /// What both say to `arguments`, as lines that do not depend on the
    /// address and on the moment.
    async fn same(&self, clients: [Client; 2], arguments: &[&str]) -> String {
        let [through, direct] = clients;
        let through = through.run(arguments).await.ok().stdout;
        let direct = direct.run(arguments).await.ok().stdout;
        assert_eq!(
            self.settled(&through),
            self.settled(&direct),
            "{arguments:?}"
        );
        assert!(!through.is_empty(), "{arguments:?} says nothing");
        through
    }

    fn settled(&self, text: &str) -> Vec<String> {
        let moment = ["Last Activity", "Last used", "Name:", "Endpoint:"];
        let lines = text
            .lines()
            .filter(|line| !moment.iter().any(|word| line.contains(word)));
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }
}

#[tokio::test]
async fn buildx_inspect_shows_the_daemon() {
    let built = Built::new().await;
    let text = built.same(built.buildx().await, &["inspect"]).await;
    assert!(
        text.contains("v0.32.2") && text.contains("running"),
        "{text}"
    );
}

#[tokio::test]
async fn du_lists_the_same_records() {
    let built = Built::new().await;
    for [through, direct] in [built.buildx().await, built.buildctl()] {
        let ids = |text: String| -> BTreeSet<String> {
            text.lines()
                .filter_map(|line| line.split_whitespace().next())
                .map(str::to_owned)
                .collect()
        };
        let through = ids(through.run(["du"]).await.ok().stdout);
        assert_eq!(through, ids(direct.run(["du"]).await.ok().stdout));
        assert!(through.len() > 10, "{through:?}");
    }
}

#[tokio::test]
async fn du_tells_everything_about_a_record() {
    let built = Built::new().await;
    let text = built.same(built.buildctl(), &["du", "--verbose"]).await;
    assert!(text.contains("Description"), "{text}");
}

#[tokio::test]
async fn prune_frees_what_was_built() {
    for buildx in [true, false] {
        let built = Built::new().await;
        let ([through, direct], arguments) = if buildx {
            (built.buildx().await, vec!["prune", "-af"])
        } else {
            (built.buildctl(), vec!["prune", "--all"])
        };
        let text = through.run(arguments).await.ok().stdout;
        assert!(text.contains("Total"), "{text}");
        let left = direct.run(["du"]).await.ok().stdout;
        assert!(
            left.lines()
                .any(|line| line.starts_with("Total:") && line.ends_with("0B")),
            "{left}"
        );
    }
}

#[tokio::test]
async fn history_is_the_same() {
    let built = Built::new().await;
    let [through, direct] = built.buildx().await;
    for arguments in [
        ["history", "ls", "--format=json"],
        ["history", "inspect", "--format=json"],
    ] {
        let record = async |client: &Client| -> Value {
            let text = client.run(arguments).await.ok().stdout;
            let mut record: Value = serde_json::from_str(&text).expect("one record");
            // The builder's name stands before the build's id.
            for name in ["ref", "Ref"] {
                if let Some(id) = record.get(name).and_then(Value::as_str) {
                    record[name] = id.rsplit('/').next().into();
                }
            }
            record
        };
        let shown = record(&through).await;
        assert_eq!(shown, record(&direct).await);
        assert!(
            shown.to_string().to_lowercase().contains("completed"),
            "{shown:#}"
        );
    }
}

#[tokio::test]
async fn history_logs_are_the_same() {
    let built = Built::new().await;
    let [through, direct] = built.buildx().await;
    let arguments = ["history", "logs", "--progress=plain"];
    let (through, direct) = (
        through.run(arguments).await.ok(),
        direct.run(arguments).await.ok(),
    );
    let said = format!("{}{}", through.stdout, through.stderr);
    assert_eq!(said, format!("{}{}", direct.stdout, direct.stderr));
    assert!(said.contains("RUN cat /app /assets"), "{said}");
}

#[tokio::test]
async fn debug_verbs_answer() {
    let built = Built::new().await;
    built
        .same(built.buildctl(), &["debug", "workers", "--verbose"])
        .await;
    let info = built.same(built.buildctl(), &["debug", "info"]).await;
    assert!(info.contains("v0.32.2"), "{info}");
    built.same(built.buildctl(), &["debug", "histories"]).await;
}

#[tokio::test]
async fn a_secret_reaches_its_step() {
    let lab = Lab::new();
    let runner = lab.runner("one", &lab.path("data")).await;
    let file = lab.path("token");
    std::fs::write(&file, "open sesame").unwrap();
    for (name, client) in [
        ("x", lab.buildx(runner.address()).await),
        ("ctl", lab.buildctl(runner.address())),
    ] {
        let out = lab.path(name);
        let build = Build::of(&lab.context("secrets"))
            .target("secret")
            .output_folder(&out);
        client
            .build(
                &build
                    .clone()
                    .secret(&format!("id=token,src={}", file.display())),
            )
            .await
            .ok();
        let sum = std::fs::read_to_string(out.join("token.sum")).unwrap();
        assert!(
            sum.starts_with("41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb"),
            "{sum}"
        );
        let missing = client.build(&build.argument("--no-cache")).await.failed();
        assert!(
            missing.verdict().contains("secret token: not found"),
            "{}",
            missing.verdict()
        );
    }
}

#[tokio::test]
async fn an_ssh_agent_reaches_its_step() {
    let lab = Lab::new();
    let runner = lab.runner("one", &lab.path("data")).await;
    let socket = lab.path("agent.sock");
    let _agent = tokio::process::Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("the agent listens", async || socket.exists().then_some(())).await;
    let out = lab.path("out");
    let build = Build::of(&lab.context("secrets"))
        .target("agent")
        .output_folder(&out);
    let build = build.ssh(&format!("default={}", socket.display()));
    lab.buildx(runner.address()).await.build(&build).await.ok();
    assert_eq!(
        std::fs::read_to_string(out.join("agent")).unwrap(),
        "forwarded\n"
    );
}

#[tokio::test]
async fn a_forwarded_socket_carries_bytes_both_ways() {
    let lab = Lab::new();
    let runner = lab.runner("one", &lab.path("data")).await;
    let context = lab.context("secrets");
    std::fs::copy(
        crate::harness::BuildKit::Current.command("buildctl"),
        context.join("buildctl"),
    )
    .unwrap();
    let socket = runner.buildkitd.address.trim_start_matches("unix://");
    let out = lab.path("out");
    let build = Build::of(&context)
        .target("socket")
        .output_folder(&out)
        .ssh(&format!("daemon={socket},raw=true"));
    lab.buildctl(runner.address()).build(&build).await.ok();
    let workers = std::fs::read_to_string(out.join("workers")).unwrap();
    assert!(workers.contains("linux/"), "{workers}");
}
