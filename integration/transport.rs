//! Every way to reach the sidecar and the buildkitd behind it: unix sockets,
//! TCP, mutual TLS; and the addresses that are refused.

use crate::harness::{Build, Client, Lab, MULTISTAGE_STEPS, Runner, SidecarSpec, Tls, layerd};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

/// `--NAME=PATH` for each.
fn flags(pairs: [(&str, std::path::PathBuf); 3]) -> Vec<String> {
    pairs
        .into_iter()
        .map(|(name, path)| format!("--{name}={}", path.display()))
        .collect()
}

fn listening_with_tls(spec: SidecarSpec, tls: &Tls) -> SidecarSpec {
    let files = [
        ("tls-cert", tls.server_cert()),
        ("tls-key", tls.server_key()),
        ("tls-client-ca", tls.ca()),
    ];
    spec.listen("tcp://127.0.0.1:0").arguments(flags(files))
}

#[tokio::test]
async fn one_sidecar_listens_on_a_socket_and_on_tcp() {
    let lab = Lab::new();
    let spec = lab.sidecar("one").listen("tcp://127.0.0.1:0");
    let runner = Runner::start(lab.buildkitd("one"), spec).await;
    let [socket, tcp] = runner.sidecar.addresses.as_slice() else {
        panic!("two addresses")
    };
    assert!(
        tcp.starts_with("tcp://127.0.0.1:") && !tcp.ends_with(":0"),
        "{tcp}"
    );
    let build = Build::of(&lab.context("multistage")).cache_to(TO);
    lab.buildx(tcp)
        .await
        .build(&build)
        .await
        .ok()
        .assert_no_warning();
    lab.buildctl(tcp)
        .build(&build)
        .await
        .ok()
        .assert_all_cached(MULTISTAGE_STEPS);
    lab.buildctl(socket)
        .build(&build)
        .await
        .ok()
        .assert_all_cached(MULTISTAGE_STEPS);
}

#[tokio::test]
async fn a_tls_listener_serves_clients_with_a_certificate_only() {
    let lab = Lab::new();
    let tls = Tls::make(lab.folder("tls"));
    let stranger = Tls::make(lab.folder("stranger"));
    let spec = listening_with_tls(lab.sidecar("one"), &tls);
    let runner = Runner::start(lab.buildkitd("one"), spec).await;
    let tcp = &runner.sidecar.addresses[1];
    let build = Build::of(&lab.context("multistage")).cache_to(TO);
    let folder = lab.folder("clients");
    Client::buildx(&folder, tcp, Some(&tls))
        .await
        .build(&build)
        .await
        .ok()
        .assert_no_warning();
    Client::buildctl(&folder, tcp, Some(&tls))
        .build(&build)
        .await
        .ok();
    Client::buildctl(&folder, tcp, Some(&stranger))
        .run(["debug", "workers"])
        .await
        .failed();
    Client::buildctl(&folder, tcp, None)
        .run(["debug", "workers"])
        .await
        .failed();
}

#[tokio::test]
async fn a_buildkitd_behind_tls_is_reached() {
    let lab = Lab::new();
    let tls = Tls::make(lab.folder("tls"));
    let data = lab.path("data");
    let context = lab.context("multistage");
    for (name, build) in [
        ("one", Build::of(&context).cache_to(TO)),
        ("two", Build::of(&context).cache_from(FROM)),
    ] {
        let files = [
            ("buildkitd-tls-ca", tls.ca()),
            ("buildkitd-tls-cert", tls.client_cert()),
            ("buildkitd-tls-key", tls.client_key()),
        ];
        let spec = lab.sidecar(name).data_dir(&data).arguments(flags(files));
        let spec = spec.arguments(["--buildkitd-tls-server-name=localhost"]);
        let runner = Runner::start(lab.buildkitd(name).tls(&tls), spec).await;
        let outcome = lab.buildx(runner.address()).await.build(&build).await.ok();
        if name == "two" {
            outcome.assert_all_cached(MULTISTAGE_STEPS);
        }
    }
}

#[tokio::test]
async fn an_address_that_nobody_can_pull_from_is_an_error_that_says_what_to_do() {
    let lab = Lab::new();
    let listen = format!("unix://{}", lab.path("layerd.sock").display());
    for everywhere in ["0.0.0.0:0", "[::]:0"] {
        let arguments = ["sidecar", "--metrics=off", "--listen", &listen];
        let pull = ["--pull-listen", everywhere];
        let refused = layerd([&arguments[..], &pull].concat()).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        for part in [everywhere, "--pull-listen", "--pull-advertise"] {
            assert!(refused.stderr.contains(part), "{}", refused.stderr);
        }
    }
    let daemon = lab.buildkitd("daemon").start().await;
    let spec = lab.sidecar("open").buildkitd(&daemon.address);
    let pull = ["--pull-listen=0.0.0.0:0", "--pull-advertise=127.0.0.1:1"];
    let open = spec.arguments(pull).start().await;
    let log = open.log();
    let warned = log.matches("can be pulled from other hosts").count();
    assert_eq!(warned, 1, "{log}");
}
