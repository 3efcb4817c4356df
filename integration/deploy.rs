//! What `deploy/` brings: the dashboard, the alerts and the example
//! configuration name what running daemons show, and nothing else.

mod promql;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::tools::pinned;
use crate::harness::{Hub, Lab, Postgres, Prometheus, Sidecar, layerd, until};

const MINUTES: &str = "5m";

/// Nobody listens at the issuer's address.
const ISSUERS: &str = "
[[issuer]]
name = 'ci'
url = 'http://127.0.0.1:9'
audience = 'hub'

[[rule]]
name = 'ci'
issuer = 'ci'
match = { sub = 'job' }
project = 'acme'
read = ['main']
";

fn deployed(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("deploy").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(deployed(name)).unwrap()
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Every label of every metric, with the values that it has.
type Series = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// A hub with every backend that counts, a sidecar of it and one with a store
/// of its own, scraped as `deploy/prometheus.yml` has it.
struct Scene {
    prometheus: Prometheus,
    shown: Series,
    _daemons: (Postgres, Hub, [Sidecar; 2]),
    _lab: Lab,
}

impl Scene {
    async fn new() -> Self {
        let (lab, postgres) = (Lab::new(), Postgres::start());
        let hub = hub(&lab, &postgres).await;
        let nowhere = format!("unix://{}", lab.path("nowhere.sock").display());
        let near = lab.sidecar("near").buildkitd(&nowhere);
        let near = near.arguments(["--hub", hub.url()]).start().await;
        let alone = lab.sidecar("alone").buildkitd(&nowhere).start().await;

        let targets = [&near, &alone].map(|sidecar| sidecar.metrics.clone().unwrap());
        let rules = deployed("alerts.yml").display().to_string();
        let config = read("prometheus.yml");
        let changes = [
            ("cache.internal:9465", hub.metrics_address()),
            ("runner-1.internal:9464", &targets.join("\", \"")),
            ("_interval: 15s", "_interval: 1s"),
            ("- alerts.yml", &format!("- {rules}")),
        ];
        let config = changes.iter().fold(config, |config, (from, to)| {
            assert!(config.contains(from), "no {from}\n{config}");
            config.replace(from, to)
        });
        let prometheus = Prometheus::start(lab.folder("prometheus"), &config).await;
        // A rate needs two samples.
        until("every target was scraped twice", async || {
            let scraped = r#"count_over_time(up{job=~"layerd-.*"}[1m]) >= 3"#;
            (prometheus.query(scraped).await.len() == 3).then_some(())
        })
        .await;
        let shown = series(&prometheus).await;
        Self {
            prometheus,
            shown,
            _daemons: (postgres, hub, [near, alone]),
            _lab: lab,
        }
    }

    /// Panics if `query` names a metric, a label or a value of one that no
    /// daemon shows, or if `legend` names a label that is lost.
    fn check(&self, place: &str, query: &str, legend: &str) {
        let read = promql::read(query);
        assert!(!read.selectors.is_empty(), "{place}: {query}");
        let mut known = BTreeSet::new();
        for selector in &read.selectors {
            let metric = &selector.metric;
            let labels = self.shown.get(metric);
            let labels = labels.unwrap_or_else(|| panic!("{place}: nobody shows {metric}"));
            known.extend(labels.keys().cloned());
            for matcher in &selector.matchers {
                let label = &matcher.label;
                let values = labels.get(label);
                let values = values.unwrap_or_else(|| panic!("{place}: {metric} has no {label}"));
                for value in matcher
                    .values
                    .iter()
                    .filter(|value| !value.starts_with('$'))
                {
                    let there = values.contains(value);
                    assert!(
                        there,
                        "{place}: {metric} has no {label}={value}: {values:?}"
                    );
                }
            }
        }
        let lost = read.grouped.difference(&known).collect::<Vec<_>>();
        assert!(lost.is_empty(), "{place}: there is no {lost:?} in {query}");
        let kept = if read.aggregates {
            &read.grouped
        } else {
            &known
        };
        for label in legend.split("{{").skip(1) {
            let label = label.split("}}").next().unwrap();
            assert!(
                kept.contains(label),
                "{place}: no {label} is left of {query}"
            );
        }
    }
}

/// One whose catalog is a Postgres, and who has just been shown an identity by a
/// CI whose keys are not to be had.
async fn hub(lab: &Lab, postgres: &Postgres) -> Hub {
    let (config, key) = (lab.path("hub.toml"), lab.path("key.pem"));
    let [config, key] = [config, key].map(|path| path.display().to_string());
    std::fs::write(&config, ISSUERS).unwrap();
    layerd(["token", "key", "-o", &key]).await.ok();
    let catalog = postgres.database("deploy");
    let arguments = [
        ["--catalog", &catalog],
        ["--config", &config],
        ["--auth", "token"],
        ["--token-key-file", &key],
    ];
    let hub = lab.hub("hub").arguments(arguments.concat()).start().await;

    let now = jiff::Timestamp::now().as_second();
    let claims = json!({
        "iss": "http://127.0.0.1:9", "aud": "hub", "sub": "job", "iat": now, "exp": now + 300,
    });
    let head = json!({ "alg": "EdDSA", "kid": "first", "typ": "JWT" });
    let parts = [head.to_string(), claims.to_string(), "s".repeat(64)];
    let identity = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let form = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
         &subject_token_type=urn:ietf:params:oauth:token-type:id_token\
         &subject_token={identity}"
    );
    let url = format!("{}/v1/token", hub.url());
    let mut command = Command::new("curl");
    let asked = command.args(["--silent", "--data", &form, &url]);
    let answer = asked.output().await.unwrap();
    assert!(answer.status.success(), "{answer:?}");
    hub
}

async fn series(prometheus: &Prometheus) -> Series {
    let all = r#"{job=~"layerd-.*"}"#;
    let answer = prometheus.ask("series", &[("match[]", all)]).await;
    let mut series = Series::new();
    for one in answer.as_array().unwrap() {
        let labels = one.as_object().unwrap();
        let metric = series.entry(words(&one["__name__"]).to_owned());
        let metric = metric.or_default();
        for (label, value) in labels.iter().filter(|(label, _)| *label != "__name__") {
            let values = metric.entry(label.clone()).or_default();
            values.insert(words(value).to_owned());
        }
    }
    series
}

/// As Grafana would ask it, for all jobs and instances.
fn filled_in(query: &str) -> String {
    let query = query.replace("$__rate_interval", MINUTES);
    let query = query.replace("$__range", MINUTES);
    let query = query
        .replace("$job", "layerd-.*")
        .replace("$instance", ".+");
    assert!(!query.contains('$'), "{query}");
    query
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana/layerd.json")).unwrap()
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().collect()
}

#[tokio::test]
async fn every_panel_shows_something_of_running_daemons() {
    let scene = Scene::new().await;
    let dashboard = dashboard();
    for panel in panels(&dashboard) {
        let title = words(&panel["title"]);
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = words(&target["expr"]);
            scene.check(title, query, words(&target["legendFormat"]));
            let asked = filled_in(query);
            let got = scene.prometheus.query(&asked).await;
            // What compares shows nothing while all is well.
            assert!(!got.is_empty() || asked.contains('>'), "{title}: {asked}");
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["query"]["query"].as_str() else {
            continue;
        };
        let inside = query.strip_prefix("label_values(").unwrap();
        let inside = inside.strip_suffix(')').unwrap();
        let (selector, label) = inside.rsplit_once(", ").unwrap();
        scene.check(query, selector, &format!("{{{{{label}}}}}"));
    }
}

#[tokio::test]
async fn every_alert_is_about_what_running_daemons_show_and_says_what_to_do() {
    let scene = Scene::new().await;
    let answer = scene.prometheus.ask("rules", &[("type", "alert")]).await;
    let groups = answer["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let (page, tests) = (runbook(), read("alerts.test.yml"));
    let mut names = BTreeSet::new();
    for rule in rules {
        let name = words(&rule["name"]);
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        let text = ["summary", "description"].map(|part| words(&rule["annotations"][part]));
        assert!(text.iter().all(|text| text.len() > 10), "{rule:#}");
        scene.check(name, words(&rule["query"]), &labels_in(&text.concat()));
        assert_eq!(rule["lastError"], Value::Null, "{rule:#}");
        assert!(rule["duration"].as_f64().unwrap() >= 60.0, "{rule:#}");
        let severity = words(&rule["labels"]["severity"]);
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{rule:#}"
        );
        let anchor = format!("docs/operations.md#{}", name.to_lowercase());
        assert_eq!(words(&rule["annotations"]["runbook"]), anchor);
        for case in [format!("'{name}: "), format!("'{name} is quiet'")] {
            assert!(tests.contains(&case), "no {case} in alerts.test.yml");
        }
    }
    let headings = page
        .lines()
        .filter_map(|line| line.strip_prefix("### Layerd"));
    let described = headings.map(|rest| format!("Layerd{rest}")).collect();
    assert_eq!(names, described, "docs/operations.md has each and no other");
}

fn runbook() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join("docs/operations.md")).unwrap()
}

/// Labels that a text of an alert puts in, as a legend would.
fn labels_in(text: &str) -> String {
    let named = text.split("$labels.").skip(1);
    let named = named.map(|rest| rest.split([' ', '}']).next().unwrap());
    named.map(|label| format!("{{{{{label}}}}}")).collect()
}

#[tokio::test]
async fn promtool_takes_the_rules_and_each_of_their_tests_passes() {
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
    ] {
        let mut command = Command::new("promtool");
        let command = command.args(&arguments[..2]).arg(deployed(arguments[2]));
        let ended = command.output().await.unwrap();
        assert!(ended.status.success(), "{arguments:?}: {ended:#?}");
    }
}

#[test]
fn the_dashboard_can_be_imported_and_every_panel_says_what_it_is() {
    let dashboard = dashboard();
    assert_eq!(dashboard["id"], Value::Null, "it belongs to no Grafana yet");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        let title = words(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|at| panel["gridPos"][at].as_u64().unwrap());
        assert!(x + w <= 24, "{title} is wider than the page");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{title} lies on another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(words(&panel["description"]).ends_with('.'), "{title}");
        assert!(
            !words(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(),
            "{title}"
        );
        let targets = panel["targets"].as_array().unwrap();
        for source in targets.iter().chain([panel]) {
            assert_eq!(
                words(&source["datasource"]["uid"]),
                "${datasource}",
                "{title}"
            );
        }
        for target in targets {
            let query = words(&target["expr"]);
            let selectors = promql::read(query).selectors;
            let chosen = selectors.iter().all(|selector| {
                let labels = selector
                    .matchers
                    .iter()
                    .map(|matcher| matcher.label.as_str());
                ["job", "instance"]
                    .iter()
                    .all(|label| labels.clone().any(|there| there == *label))
            });
            assert!(chosen, "{title} does not heed the variables: {query}");
        }
    }
}

#[test]
fn the_images_are_of_the_versions_that_are_tested() {
    let dockerfile = read("Dockerfile");
    let buildkit = format!("FROM moby/buildkit:{} AS", pinned("BUILDKIT_VERSION"));
    assert!(dockerfile.contains(&buildkit), "no {buildkit}");
    let channel = include_str!("../rust-toolchain.toml");
    let channel = channel.split("channel = \"").nth(1).unwrap();
    let rust = channel.split(".0\"").next().unwrap();
    assert!(
        dockerfile.contains(&format!("FROM rust:{rust}-")),
        "no {rust}"
    );
}
