use serde_json::Value;

use super::*;

/// An archive of two exports that share a layer.
struct Given {
    taken: Taken,
    first: Value,
    second: Value,
}

impl Given {
    async fn new() -> Self {
        let store = Store::new().await;
        let shared = noise(1, 1000);
        store
            .publish(place("p", "one"), "one", &[shared.clone(), noise(2, 2000)])
            .await;
        store
            .publish(place("p", "two"), "two", &[shared, noise(3, 3000)])
            .await;
        let taken = Taken::of(store.archive().await);
        let index = taken.json("index.json");
        let manifest = |at: usize| {
            let digest = index["manifests"][at]["digest"].as_str().unwrap();
            serde_json::from_slice(taken.blob(digest).unwrap()).unwrap()
        };
        Self {
            first: manifest(0),
            second: manifest(1),
            taken,
        }
    }

    /// The entry of a blob of the second export alone.
    fn entry(&self, digest: &Value) -> usize {
        let digest = digest.as_str().unwrap();
        let name = format!("blobs/sha256/{}", &digest["sha256:".len()..]);
        let names = self.taken.names();
        names.iter().position(|known| *known == name).unwrap()
    }

    fn last_layer(&self) -> usize {
        self.entry(&self.second["layers"][1]["digest"])
    }

    /// Changes the manifest of the second export, and the index with it.
    fn with_manifest(&self, change: impl Fn(&mut Value)) -> Taken {
        let mut manifest = self.second.clone();
        change(&mut manifest);
        let bytes = manifest.to_string().into_bytes();
        let mut taken = self.taken.clone();
        let mut index = taken.json("index.json");
        let at = self.entry(&index["manifests"][1]["digest"]);
        index["manifests"][1]["digest"] = Digest::of(&bytes).to_string().into();
        index["manifests"][1]["size"] = bytes.len().into();
        taken.entries[1].1 = index.to_string().into_bytes();
        taken.entries[at] = (format!("blobs/sha256/{}", Digest::of(&bytes).hex()), bytes);
        taken
    }
}

/// What is wrong with the second export costs that one.
async fn assert_refused(what: &str, archive: File, why: &str) {
    let to = Store::new().await;
    let (imported, read) = to.import(archive).await;
    assert!(read.is_ok(), "{what}: {read:?}");
    let told: Vec<&str> = imported.refused.iter().map(|one| &*one.why).collect();
    assert_eq!(told.len(), 1, "{what}: {imported:?}");
    assert!(told[0].contains(why), "{what}: {told:?}");
    assert_eq!(imported.refused[0].name, "latest", "{what}");
    let seen = to.seen().await;
    assert_eq!(seen.len(), 1, "{what}: the other one stands");
    assert_eq!(seen[0].place.1, "refs/heads/one", "{what}");
    to.assert_sound().await;
}

/// What is wrong with the archive ends the reading.
async fn assert_ended(what: &str, archive: File, why: &str) {
    let to = Store::new().await;
    let (imported, read) = to.import(archive).await;
    let error = read.expect_err(what);
    assert!(
        matches!(error, ArchiveError::Malformed(_)),
        "{what}: {error:?}"
    );
    assert!(error.to_string().contains(why), "{what}: {error}");
    assert_eq!(to.seen().await.len(), imported.exports, "{what}");
    to.assert_sound().await;
}

#[tokio::test]
async fn a_wrong_blob_costs_the_exports_that_need_it_and_no_other() {
    let given = Given::new().await;
    let (layer, steps, config) = (
        given.last_layer(),
        given.entry(&given.second["annotations"]["layerd/steps"]),
        given.entry(&given.second["config"]["digest"]),
    );
    for (what, at) in [("layer", layer), ("steps", steps), ("config", config)] {
        let mut taken = given.taken.clone();
        taken.entries[at].1[0] ^= 1;
        assert_refused(what, taken.archive(), "unexpected digest").await;
        let mut taken = given.taken.clone();
        taken.entries[at].1.push(0);
        assert_refused(what, taken.archive(), "were announced").await;
        let mut taken = given.taken.clone();
        taken.entries.remove(at);
        assert_refused(what, taken.archive(), "not in the archive").await;
    }
}

type Change<'a> = &'a dyn Fn(&mut Value);

#[tokio::test]
async fn a_wrong_manifest_costs_its_export_alone() {
    let given = Given::new().await;
    let text = |text: &str| Value::from(text);
    let wrong: [(&str, Change, &str); 9] = [
        (
            "project",
            &|m| m["annotations"]["layerd/project"] = text("../etc"),
            "layerd/project",
        ),
        (
            "ref",
            &|m| m["annotations"]["layerd/ref"] = text("a\u{7}"),
            "layerd/ref",
        ),
        (
            "every scope",
            &|m| m["annotations"]["layerd/scope"] = text("*"),
            "no one scope",
        ),
        (
            "builder",
            &|m| m["annotations"]["layerd/builder"] = text("\u{1b}[2J"),
            "layerd/builder",
        ),
        (
            "no size",
            &|m| m["annotations"]["layerd/steps-size"] = Value::Null,
            "invalid type",
        ),
        (
            "an image",
            &|m| m["config"]["mediaType"] = text("application/vnd.oci.image.config.v1+json"),
            "not a cache manifest",
        ),
        (
            "a huge config",
            &|m| m["config"]["size"] = (1_u64 << 40).into(),
            "are not taken",
        ),
        (
            "two sizes",
            &|m| m["layers"][0]["size"] = 7.into(),
            "another size",
        ),
        (
            "fewer layers than the config",
            &|m| m["layers"] = Value::Array(vec![m["layers"][0].clone()]),
            "does not name",
        ),
    ];
    for (what, change, why) in wrong {
        let mut taken = given.with_manifest(change);
        if what.starts_with("fewer") {
            taken.entries.remove(given.last_layer());
        }
        assert_refused(what, taken.archive(), why).await;
    }
}

#[tokio::test]
async fn what_is_no_archive_is_told_so() {
    let given = Given::new().await;
    let mut plain = tempfile::tempfile().unwrap();
    plain.write_all(&[b'x'; 4096]).unwrap();
    assert_ended("no zstd", plain, "not what layerd cache export writes").await;
    let empty = tempfile::tempfile().unwrap();
    assert_ended("nothing", empty, "not what layerd cache export writes").await;
    assert_ended("no tar", compressed(&[b'x'; 4096]), "damaged").await;
    assert_ended("an empty tar", compressed(&[0; 1024]), "oci-layout").await;
    for (what, at, content, why) in [
        ("layout", 0, r#"{"imageLayoutVersion":"9"}"#, "version"),
        ("no layout", 0, "{", "oci-layout"),
        ("no index", 1, "[1", "index.json"),
        (
            "an empty index",
            1,
            r#"{"schemaVersion":2,"manifests":[]}"#,
            "lists nothing",
        ),
        (
            "another index",
            1,
            r#"{"schemaVersion":1,"manifests":[]}"#,
            "no image index",
        ),
    ] {
        let mut taken = given.taken.clone();
        taken.entries[at].1 = content.into();
        assert_ended(what, taken.archive(), why).await;
    }
    for (what, key, value, why) in [
        (
            "media type",
            "mediaType",
            Value::from("application/x"),
            "no export",
        ),
        (
            "digest",
            "digest",
            Value::from("sha256:../../etc/passwd"),
            "index.json",
        ),
        (
            "twice",
            "digest",
            given.taken.json("index.json")["manifests"][0]["digest"].clone(),
            "twice",
        ),
    ] {
        let mut taken = given.taken.clone();
        let mut index = taken.json("index.json");
        index["manifests"][1][key] = value;
        taken.entries[1].1 = index.to_string().into_bytes();
        assert_ended(what, taken.archive(), why).await;
    }
    let mut taken = given.taken.clone();
    let mut index = taken.json("index.json");
    index["manifests"][1]["size"] = Value::from(1_u64 << 40);
    taken.entries[1].1 = index.to_string().into_bytes();
    assert_refused("huge", taken.archive(), "are not taken").await;
}

#[tokio::test]
async fn names_links_and_extensions_of_a_tar_lead_nowhere() {
    let given = Given::new().await;
    for name in [
        "../escape",
        "blobs/sha256/../../escape",
        "/etc/passwd",
        "blobs/sha256/ABC",
        "blobs/sha512/0000",
        "a\u{1b}b",
        "",
    ] {
        for at in [0, 2, given.taken.entries.len()] {
            let mut taken = given.taken.clone();
            taken.entries.insert(at, (name.to_owned(), b"x".to_vec()));
            assert_ended(name, taken.archive(), "").await;
        }
    }
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Char,
        tar::EntryType::Fifo,
        tar::EntryType::XHeader,
        tar::EntryType::XGlobalHeader,
        tar::EntryType::GNULongName,
        tar::EntryType::GNULongLink,
        tar::EntryType::GNUSparse,
    ] {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = header("oci-layout", 0);
        header.set_entry_type(kind);
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
        let archive = compressed(&tar.into_inner().unwrap());
        assert_ended(&format!("{kind:?}"), archive, "no plain file").await;
    }
}

#[tokio::test]
async fn what_was_not_announced_is_not_read() {
    let given = Given::new().await;
    let stranger = noise(9, 100);
    let mut taken = given.taken.clone();
    let name = format!("blobs/sha256/{}", Digest::of(&stranger).hex());
    taken.entries.push((name, stranger));
    assert_ended("a stranger", taken.archive(), "names it").await;
    for at in [
        given.entry(&given.second["config"]["digest"]),
        given.last_layer(),
    ] {
        let mut taken = given.taken.clone();
        taken.entries.push(taken.entries[at].clone());
        assert_ended("twice", taken.archive(), "comes twice").await;
    }
    let mut taken = given.taken.clone();
    taken.entries.swap(2, given.last_layer());
    assert_ended("layers first", taken.archive(), "names it").await;
    let mut taken = given.taken.clone();
    let config = given.entry(&given.second["config"]["digest"]);
    let late = taken.entries.remove(config);
    taken.entries.push(late);
    assert_ended("a late document", taken.archive(), "behind a layer").await;
    assert!(!given.first.is_null());
}

#[tokio::test]
async fn a_bomb_is_stopped_before_it_bursts() {
    let given = Given::new().await;
    // A header that says so is enough: the content need not even be there.
    for (name, why) in [
        ("oci-layout", "are not taken"),
        ("index.json", "oci-layout"),
        ("blobs/sha256/0000", "oci-layout"),
    ] {
        let mut tar = Vec::from(header(name, 1 << 40).as_bytes());
        tar.resize(1 << 20, 0);
        assert_ended(name, compressed(&tar), why).await;
    }
    // 4 GiB of nothing behind all that was announced, in some hundred kB.
    let (bomb, zeros) = (tempfile::tempfile().unwrap(), vec![0; 1 << 20]);
    let mut encoder = zstd::Encoder::new(bomb, 1).unwrap();
    let mut whole = Vec::new();
    let good = given.taken.archive();
    zstd::Decoder::new(good)
        .unwrap()
        .read_to_end(&mut whole)
        .unwrap();
    encoder.write_all(&whole[..whole.len() - 1024]).unwrap();
    encoder
        .write_all(header("blobs/sha256/1", 4 << 30).as_bytes())
        .unwrap();
    for _ in 0..64 {
        encoder.write_all(&zeros).unwrap();
    }
    assert_ended("zeros", encoder.finish().unwrap(), "no place").await;
    // Folders without end.
    let mut tar = tar::Builder::new(Vec::new());
    for number in 0..1000 {
        let mut header = header(&format!("folder-{number}"), 0);
        header.set_entry_type(tar::EntryType::Directory);
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
    }
    let folders = compressed(&tar.into_inner().unwrap());
    assert_ended("folders", folders, "no plain file").await;
    // A million exports.
    let listed = |number: u32| {
        let digest = Digest::of(&number.to_be_bytes());
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1})
    };
    let many: Vec<Value> = (0..100_001).map(listed).collect();
    let mut taken = given.taken.clone();
    taken.entries[1].1 = json!({"schemaVersion": 2, "manifests": many})
        .to_string()
        .into();
    assert_ended("exports", taken.archive(), "100001 exports").await;
}

#[tokio::test]
async fn a_damaged_file_ends_the_reading_wherever_it_is_damaged() {
    let given = Given::new().await;
    let mut whole = Vec::new();
    given.taken.archive().read_to_end(&mut whole).unwrap();
    for part in 0..16 {
        let cut = whole.len() * part / 16;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&whole[..cut]).unwrap();
        let why = format!("cut at {cut}");
        assert_ended(&why, file, "").await;
    }
    // What was not compressed has no checksum of its own; the layers have.
    let to = Store::new().await;
    let mut flipped = whole.clone();
    let at = flipped.len() - 1500;
    flipped[at] ^= 0x10;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&flipped).unwrap();
    let (imported, read) = to.import(file).await;
    assert!(
        read.is_err() || !imported.refused.is_empty(),
        "{imported:?}"
    );
    to.assert_sound().await;
}
