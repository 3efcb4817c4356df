use oci_spec::image::{ImageIndex, ImageManifest, OciLayout};

use super::*;

#[tokio::test]
async fn any_tool_that_knows_image_layouts_can_read_an_archive() {
    let store = Store::new().await;
    store
        .publish(place("p", "main"), "one", &[noise(1, 1000), noise(2, 0)])
        .await;
    store
        .publish(place("p", "dev"), "two", &[noise(1, 1000), noise(3, 5000)])
        .await;
    let taken = Taken::of(store.archive().await);
    let layout = OciLayout::from_reader(taken.entries[0].1.as_slice()).unwrap();
    assert_eq!(layout.image_layout_version(), "1.0.0");
    let index = ImageIndex::from_reader(taken.entries[1].1.as_slice()).unwrap();
    let names: Vec<_> = index
        .manifests()
        .iter()
        .map(|listed| {
            let annotations = listed.annotations().as_ref().unwrap();
            annotations["org.opencontainers.image.ref.name"].as_str()
        })
        .collect();
    assert_eq!(names, ["export-1", "latest"]);
    let mut wanted = BTreeSet::from(["oci-layout".to_owned(), "index.json".to_owned()]);
    let mut blob = |digest: &str, size: u64| {
        let bytes = taken.blob(digest).unwrap().to_vec();
        assert_eq!(
            (bytes.len() as u64, Digest::of(&bytes).to_string()),
            (size, digest.to_owned())
        );
        wanted.insert(format!("blobs/sha256/{}", &digest["sha256:".len()..]));
        bytes
    };
    for listed in index.manifests() {
        let manifest = blob(listed.digest().as_ref(), listed.size());
        let manifest = ImageManifest::from_reader(manifest.as_slice()).unwrap();
        assert_eq!(
            manifest.config().media_type().to_string(),
            CONFIG_MEDIA_TYPE
        );
        blob(
            manifest.config().digest().as_ref(),
            manifest.config().size(),
        );
        for layer in manifest.layers() {
            blob(layer.digest().as_ref(), layer.size());
            assert_eq!(layer.annotations().as_ref().unwrap().len(), 3);
        }
        let annotations = manifest.annotations().as_ref().unwrap();
        assert_eq!(annotations["layerd/project"], "p");
        let steps = &annotations["layerd/steps"];
        blob(steps, annotations["layerd/steps-size"].parse().unwrap());
    }
    let names: BTreeSet<String> = taken.names().into_iter().map(str::to_owned).collect();
    assert_eq!(names.len(), taken.entries.len(), "nothing comes twice");
    assert_eq!(names, wanted, "and nothing else");
}
