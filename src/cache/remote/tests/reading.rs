//! Reads: once, verified, resumed, from wherever the bytes are.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A host that has imported one layer, and not read it.
async fn importing(lab: &Lab, layer: &Bytes) -> (Host, Digest, Import) {
    let writer = lab.host().await;
    let digest = writer.upload(layer).await;
    let export = export(std::slice::from_ref(layer));
    writer.cache.publish(export).await.unwrap();
    let reader = lab.host().await;
    let import = reader.look_up().await.unwrap();
    (reader, digest, import)
}

#[tokio::test]
async fn two_readers_of_one_blob_cost_one_read() {
    let lab = Lab::new().await;
    let layer = content(1, 4_000_000);
    let (reader, digest, _import) = importing(&lab, &layer).await;
    lab.proxy.set(Toxic::Slow(20_000_000));
    let (one, other) = tokio::join!(reader.whole(&digest), reader.whole(&digest));
    assert_eq!(one.unwrap(), layer);
    assert_eq!(other.unwrap(), layer);
    assert_eq!(lab.double.seen().reads, 1);
}

#[tokio::test]
async fn a_read_that_breaks_off_goes_on_where_it_was() {
    let lab = Lab::new().await;
    let layer = content(1, 4_000_000);
    let (reader, digest, _import) = importing(&lab, &layer).await;
    for toxic in [
        Toxic::Cut(Way::Down, 1_000_000),
        Toxic::Cut(Way::Down, 2_000_000),
    ] {
        reader.near.tier.remove(&digest).await.unwrap();
        lab.proxy.set(toxic);
        assert_eq!(reader.whole(&digest).await.unwrap(), layer, "{toxic:?}");
    }
    reader.near.tier.remove(&digest).await.unwrap();
    lab.proxy.set(Toxic::Hang);
    let reading = reader.whole(&digest);
    let mend = async {
        until("the read is under way", || lab.proxy.accepted() > 0).await;
        lab.proxy.set(Toxic::Pass);
    };
    let (read, ()) = tokio::join!(reading, mend);
    assert_eq!(read.unwrap(), layer);
}

#[tokio::test]
async fn a_wrong_byte_is_found_and_fetched_anew() {
    let lab = Lab::new().await;
    let layer = content(1, 1_000_000);
    let (reader, digest, _import) = importing(&lab, &layer).await;
    for at in [0, 5, 14, 100, 50_000, 999_999] {
        reader.near.tier.remove(&digest).await.unwrap();
        lab.proxy.set(Toxic::Flip(Way::Down, at));
        assert_eq!(reader.whole(&digest).await.unwrap(), layer, "{at}");
    }
}

#[tokio::test]
async fn a_blob_that_rots_on_this_host_comes_anew() {
    let lab = Lab::new().await;
    let layer = content(1, 100_000);
    let (reader, digest, _import) = importing(&lab, &layer).await;
    reader.near.tier.fetch(&digest).await.unwrap();
    let hex = digest.to_string().replace("sha256:", "");
    let file = reader.dir.path().join("near/blobs/sha256").join(hex);
    let mut rotten = layer.to_vec();
    rotten[77] ^= 1;
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, rotten).unwrap();
    reader.cache.verify(&digest).await.unwrap();
    assert_eq!(reader.whole(&digest).await.unwrap(), layer);
    assert_eq!(lab.double.seen().reads, 2);
}

#[tokio::test]
async fn a_blob_that_is_withdrawn_is_forgotten_here_and_suspected_there() {
    let lab = Lab::new().await;
    let layer = content(1, 1000);
    let (reader, digest, _import) = importing(&lab, &layer).await;
    reader.whole(&digest).await.unwrap();
    let why = CacheError::Blob(BlobError::NotFound(digest));
    reader.cache.withdraw(&digest, &why).await.unwrap();
    assert!(!reader.near.tier.has(&digest).await);
    assert_eq!(lab.double.seen().suspects, [digest]);
}

#[tokio::test]
async fn nothing_can_be_read_that_no_project_holds() {
    let lab = Lab::new().await;
    let host = lab.host().await;
    assert!(host.look_up().await.is_none());
    let error = host.whole(&Digest::of(b"absent")).await.unwrap_err();
    assert!(error.is_final(), "{error}");
}

/// A bucket that has one blob, and answers ranges of it.
async fn bucket(blob: Bytes, status: &'static str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            assert!(!request.contains("authorization"), "{request}");
            let (_, range) = request.split_once("range: bytes=").unwrap();
            let (first, last) = range.lines().next().unwrap().split_once('-').unwrap();
            let [first, last]: [usize; 2] = [first, last].map(|at| at.parse().unwrap());
            let part = blob.slice(first..=last);
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                part.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let _ = stream.write_all(&part).await;
        }
    });
    format!("http://{address}/blob?signature=secret")
}

#[tokio::test]
async fn a_blob_is_read_straight_from_the_bucket() {
    let lab = Lab::new().await;
    let layer = content(1, 3_000_000);
    let (reader, digest, _import) = importing(&lab, &layer).await;
    lab.double.seen().url = Some(bucket(layer.clone(), "206 Partial Content").await);
    lab.proxy.set(Toxic::Pass);
    assert_eq!(reader.whole(&digest).await.unwrap(), layer);
    assert!(lab.proxy.down() < 100_000, "not by the hub");
}

#[tokio::test]
async fn a_bucket_that_gives_trouble_is_passed_by() {
    let lab = Lab::new().await;
    let layer = content(1, 300_000);
    let (reader, digest, _import) = importing(&lab, &layer).await;
    for url in [
        bucket(layer.clone(), "403 Forbidden").await,
        bucket(content(2, 300_000), "206 Partial Content").await,
        "http://127.0.0.1:1/blob".to_owned(),
    ] {
        lab.double.seen().url = Some(url.clone());
        let reader = match url.contains(":1/") {
            true => &reader,
            false => &lab.host().await,
        };
        let _import = reader.look_up().await;
        let read = match reader.whole(&digest).await {
            // Found to be another blob at its end; the next read goes by the hub.
            Err(CacheError::Blob(BlobError::WrongDigest { .. })) => reader.whole(&digest).await,
            read => read,
        };
        assert_eq!(read.unwrap(), layer, "{url}");
    }
}
