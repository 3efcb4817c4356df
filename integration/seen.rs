//! What the user of a build sees of its cache: which layers went out and which
//! steps made them, and nothing that is no business of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Build, BuildKit, Fate, Lab, MULTISTAGE_STEPS, Outcome, Runner, layerd};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

/// A part of the name of each step of `testdata/multistage`, and a file that
/// its layer alone has.
const MADE: [(&str, &str); MULTISTAGE_STEPS] = [
    ("ADD base.tar", "bin/busybox"),
    ("RUN mkdir /deps", "deps/first"),
    ("RUN head", "deps/second"),
    ("COPY src/main.txt", "src/main.txt"),
    ("RUN mkdir /out && cat /src/main.txt", "out/app"),
    ("COPY src/assets.txt", "src/assets.txt"),
    ("RUN mkdir /out && cat /src/assets.txt", "out/assets"),
    ("COPY --from=compile", "app"),
    ("COPY --from=assets", "assets"),
    ("RUN cat /app", "sum"),
];

/// A layer as the progress lists it.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    size: String,
    new: bool,
    step: String,
}

/// The layers that a build was told of, by digest.
fn listed(outcome: &Outcome) -> BTreeMap<String, Listed> {
    let lines = outcome.progress.lines();
    let layer = |line: &str| {
        let (digest, rest) = line.split_once(' ')?;
        let hex = digest.strip_prefix("sha256:")?;
        let (new, (size, step)) = match rest.split_once("  new") {
            Some(parts) => (true, parts),
            None => (false, rest.split_once("  already there")?),
        };
        let listed = Listed {
            size: size.trim().to_owned(),
            new,
            step: step.trim().to_owned(),
        };
        Some((hex.to_owned(), listed))
    };
    lines.into_iter().filter_map(layer).collect()
}

/// What the catalog has of an export.
async fn shown(data: &Path, export: &str) -> Value {
    let data = data.to_str().unwrap();
    let json = layerd(["cache", "show", export, "--json", "--data-dir", data]);
    serde_json::from_str(&json.await.ok().stdout).unwrap()
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output.stdout
}

/// The files of a layer blob.
fn files(blob: &Path) -> BTreeSet<String> {
    let list = run(Command::new("tar").arg("-tzf").arg(blob));
    let list = String::from_utf8(list).unwrap();
    list.lines()
        .map(|line| line.trim_start_matches("./").to_owned())
        .collect()
}

/// The digests of the layers of an image in an OCI archive.
fn layers_of_image(archive: &Path) -> Vec<String> {
    let read = |path: &str| -> Value {
        let json = run(Command::new("tar").arg("-xOf").arg(archive).arg(path));
        serde_json::from_slice(&json).unwrap()
    };
    let hex = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        digest.trim_start_matches("sha256:").to_owned()
    };
    let manifest = hex(&read("index.json")["manifests"][0]);
    let manifest = read(&format!("blobs/sha256/{manifest}"));
    manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(hex)
        .collect()
}

/// Every layer is listed with the step that made it, as its content tells.
#[track_caller]
fn assert_true(listed: &BTreeMap<String, Listed>, data: &Path) {
    assert_eq!(listed.len(), MULTISTAGE_STEPS, "{listed:#?}");
    for (hex, layer) in listed {
        let blob: PathBuf = data.join("blobs/sha256").join(hex);
        let (_, file) = MADE
            .iter()
            .find(|(part, _)| layer.step.contains(part))
            .unwrap_or_else(|| panic!("no step is known for {hex}: {listed:#?}"));
        let files = files(&blob);
        assert!(files.contains(*file), "{layer:?} has no {file}: {files:?}");
    }
}

#[tokio::test]
async fn an_export_lists_each_layer_with_its_size_and_the_step_that_made_it() {
    for version in [BuildKit::Current, BuildKit::Old] {
        let lab = Lab::new();
        let data = lab.path("data");
        let daemon = lab.buildkitd("one").version(version);
        let one = Runner::start(daemon, lab.sidecar("one").data_dir(&data)).await;
        let archive = lab.path("image.tar");
        let build = Build::of(&lab.context("multistage"))
            .cache_to(TO)
            .output(&format!("type=oci,dest={}", archive.display()));
        let outcome = lab.buildx(one.address()).await.build(&build).await.ok();
        let listed = listed(&outcome);
        assert_true(&listed, &data);
        assert!(listed.values().all(|layer| layer.new), "{listed:#?}");

        let stored = shown(&data, "1").await;
        for layer in stored["layers"].as_array().unwrap() {
            let hex = layer["digest"]
                .as_str()
                .unwrap()
                .trim_start_matches("sha256:");
            let bytes = layer["size"].as_u64().unwrap();
            let file = std::fs::metadata(data.join("blobs/sha256").join(hex)).unwrap();
            assert_eq!(file.len(), bytes);
            let shown = layerd::units::ByteSize(bytes).to_string();
            assert_eq!(listed[hex].size, shown, "{listed:#?}");
        }
        let image = layers_of_image(&archive);
        assert_eq!(image.len(), 4, "{image:?}");
        for hex in image {
            assert!(listed.contains_key(&hex), "{hex} is not in {listed:#?}");
        }
    }
}

#[tokio::test]
async fn a_build_that_hits_lists_the_names_of_steps_that_it_did_not_run() {
    let lab = Lab::new();
    let data = lab.path("data");
    let context = lab.context("multistage");
    let one = lab.runner("one", &data).await;
    let build = Build::of(&context).cache_to(TO);
    let first = lab.buildx(one.address()).await.build(&build).await.ok();
    let two = lab.runner("two", &data).await;
    let build = build.cache_from(FROM);
    let client = lab.buildctl(two.address());
    let second = client.build(&build).await.ok();
    second.assert_all_cached(MULTISTAGE_STEPS);
    let (before, after) = (listed(&first), listed(&second));
    assert_true(&after, &data);
    for (hex, layer) in &after {
        assert!(!layer.new, "{after:#?}");
        assert_eq!(layer.step, before[hex].step);
    }

    // A step that ran stands beside those that did not.
    std::fs::write(context.join("src/main.txt"), "another program\n").unwrap();
    let third = client.build(&build).await.ok();
    assert_eq!(third.progress.fate("COPY src/main"), Fate::Ran);
    assert!(listed(&third).values().any(|layer| layer.new));
    for layer in listed(&third).values() {
        assert!(!layer.step.is_empty(), "{:#?}", listed(&third));
    }

    let stored = shown(&data, "2").await;
    let records = stored["records"].as_array().unwrap();
    let results = records.iter().filter_map(|record| record["results"].get(0));
    let named: Vec<&Value> = results
        .filter(|result| result["step"].is_string())
        .collect();
    assert_eq!(named.len(), MULTISTAGE_STEPS, "{stored:#}");
    assert!(named.iter().all(|result| result["duration_ms"].is_u64()));
    let data = data.to_str().unwrap();
    let table = layerd(["cache", "show", "2", "--data-dir", data])
        .await
        .ok();
    for (part, _) in MADE {
        assert!(
            table.stdout.contains(part),
            "no {part} in\n{}",
            table.stdout
        );
    }
}

#[tokio::test]
async fn no_name_of_ours_and_no_address_shows_in_a_build() {
    for carrier in ["pull", "session"] {
        let lab = Lab::new();
        let context = lab.context("multistage");
        let data = lab.path("data");
        let writer = lab.runner("writer", &data).await;
        let build = Build::of(&context).cache_from(FROM).cache_to(TO);
        let build = build.output_folder(&lab.path("out"));
        let mut outcomes = vec![lab.buildctl(writer.address()).build(&build).await.ok()];
        let spec = lab.sidecar("reader").data_dir(&data);
        let spec = spec.arguments(["--import-carrier", carrier]);
        let reader = Runner::start(lab.buildkitd("reader"), spec).await;
        let client = lab.buildx(reader.address()).await;
        outcomes.push(client.build(&build).await.ok());

        // Rotted blobs: whatever becomes of the build, buildkitd has errors.
        for entry in std::fs::read_dir(data.join("blobs/sha256")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[0] ^= 1;
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
        let spec = lab.sidecar("late").data_dir(&data);
        let spec = spec.arguments(["--import-carrier", carrier]);
        let late = Runner::start(lab.buildkitd("late"), spec).await;
        outcomes.push(lab.buildctl(late.address()).build(&build).await);

        let addresses = [&reader, &late].map(|runner| runner.sidecar.pull.clone());
        for outcome in outcomes {
            let lines = outcome.progress.lines().into_iter();
            let verdict = outcome.verdict();
            let said = outcome
                .progress
                .warnings()
                .into_iter()
                .chain(verdict.lines());
            for line in lines.chain(said) {
                assert!(!has_name(line), "{carrier}: {line}");
                for address in addresses.iter().flatten() {
                    assert!(!line.contains(address), "{carrier}: {line}");
                }
            }
            assert!(!outcome.progress.messages().is_empty());
        }
    }
}

#[tokio::test]
async fn an_import_is_told_from_another_of_its_type_that_the_user_has() {
    for version in [BuildKit::Current, BuildKit::Old] {
        let lab = Lab::new();
        let daemon = lab.buildkitd("one").version(version);
        let one = Runner::start(daemon, lab.sidecar("one")).await;
        let theirs = "type=s3,bucket=b,region=r,endpoint_url=http://127.0.0.1:1,use_path_style=true,access_key_id=a,secret_access_key=s";
        let context = lab.context("multistage");
        let build = Build::of(&context).cache_from(theirs).cache_from(FROM);
        let client = lab.buildx(one.address()).await;
        let outcome = client.build(&build).await.ok();
        outcome.assert_told("importing cache of");
        let raw = "importing cache manifest from s3:";
        let lines = outcome.progress.lines().into_iter();
        let raw: Vec<&str> = lines.filter(|line| line.starts_with(raw)).collect();
        assert_eq!(raw.len(), 1, "{version:?}: {raw:?}");
    }
}

#[tokio::test]
async fn what_a_step_prints_is_not_touched() {
    let lab = Lab::new();
    let one = lab.runner("one", &lab.path("data")).await;
    let address = one.sidecar.pull.clone().unwrap();
    let printed = format!("layerd-{} {address}", "0123456789abcdef".repeat(2));
    let context = lab.context("multistage");
    let dockerfile = context.join("Dockerfile");
    let mut text = std::fs::read_to_string(&dockerfile).unwrap();
    text += &format!("RUN echo {printed}\n");
    std::fs::write(&dockerfile, text).unwrap();
    let build = Build::of(&context).cache_from(FROM).cache_to(TO);
    let outcome = lab.buildx(one.address()).await.build(&build).await.ok();
    let lines = outcome.progress.lines();
    assert!(lines.contains(&printed.as_str()), "{lines:#?}");
    let name = format!("RUN echo {printed}");
    assert!(lines.iter().any(|line| line.ends_with(&name)), "{lines:#?}");
}

/// Whether a line has `layerd-` and 32 hex digits in it.
fn has_name(line: &str) -> bool {
    line.split("layerd-")
        .skip(1)
        .any(|rest| rest.bytes().take_while(u8::is_ascii_hexdigit).count() >= 32)
}
