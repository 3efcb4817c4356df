//! What real builds export.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Build, Lab};

/// The configs of several builds, some of them of the same steps run anew.
pub async fn exports(lab: &Lab) -> Vec<Vec<u8>> {
    let daemon = lab.buildkitd("one").start().await;
    let client = lab.buildctl(&daemon.address);
    let mut configs = Vec::new();
    for (run, context) in ["multistage", "bake", "multistage"].into_iter().enumerate() {
        let cache = lab.path(&format!("cache-{run}"));
        let to = format!("type=local,mode=max,dest={}", cache.display());
        let build = Build::of(&lab.context(context)).cache_to(&to);
        client.build(&build).await.ok();
        configs.push(config(&cache));
        client.run(["prune", "--all"]).await.ok();
    }
    configs
}

/// The config of a cache that BuildKit exported with `type=local`.
fn config(cache: &Path) -> Vec<u8> {
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let path = cache.join("blobs").join(digest.replace(':', "/"));
        std::fs::read(path).expect("a blob")
    };
    let index = std::fs::read(cache.join("index.json")).expect("an index");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    let manifest = blob(&index["manifests"][0]);
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    blob(&manifest["config"])
}
