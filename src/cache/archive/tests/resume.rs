use rand::Rng as _;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_breaks_off_goes_on_where_it_ended() {
    let from = Store::new().await;
    for number in 0..4 {
        let layers = [noise(100, 50_000), noise(number, 3_000_000)];
        let place = place("p", &format!("branch-{number}"));
        from.publish(place, &format!("export {number}"), &layers)
            .await;
    }
    let mut archive = from.archive().await;
    let mut whole = Vec::new();
    archive.read_to_end(&mut whole).unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut cuts: Vec<usize> = {
        use rand::{RngExt as _, SeedableRng as _};
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let _ = random.next_u64();
        (0..5)
            .map(|_| random.random_range(0..whole.len()))
            .collect()
    };
    // In the third layer of the five, for certain.
    cuts.push(whole.len() * 5 / 8);
    cuts.sort_unstable();
    let to = Store::new().await;
    let mut stored = 0;
    let mut resumed = 0;
    for cut in cuts {
        let mut part = tempfile::tempfile().unwrap();
        part.write_all(&whole[..cut]).unwrap();
        let (imported, read) = to.import(part).await;
        let error = read.unwrap_err();
        assert!(
            matches!(error, ArchiveError::Malformed(_)),
            "{cut}: {error}"
        );
        assert!(imported.refused.is_empty(), "{imported:?}");
        stored += imported.layers;
        resumed += imported.resumed;
        let seen = to.seen().await;
        assert_eq!(
            seen,
            from.seen().await[..seen.len()],
            "{cut}: whole or not at all"
        );
        to.assert_sound().await;
    }
    let (imported, read) = to.import(archive).await;
    read.unwrap();
    resumed += imported.resumed;
    assert!(resumed > 0, "the cut layer went on");
    assert_eq!(stored + imported.layers, 5, "no layer is brought twice");
    assert_eq!(from.seen().await, to.seen().await);
    to.assert_sound().await;
}

#[tokio::test]
async fn a_part_that_another_archive_left_costs_one_more_import() {
    let (from, to) = (Store::new().await, Store::new().await);
    let layer = noise(1, 1_000_000);
    from.publish(place("p", "main"), "one", std::slice::from_ref(&layer))
        .await;
    let digest = Digest::of(&layer);
    let name = format!("archive {digest}");
    let mut left = to
        .cache
        .ingest(&place("p", "main"), &name, Some(digest))
        .await
        .unwrap();
    left.write(noise(2, 1000).into()).await.unwrap();
    drop(left);
    let archive = from.archive().await;
    let (imported, read) = to.import(archive.try_clone().unwrap()).await;
    read.unwrap();
    assert_eq!(imported.exports, 0);
    assert!(
        imported.refused[0].why.contains("import it again"),
        "{imported:?}"
    );
    let (imported, read) = to.import(archive).await;
    read.unwrap();
    assert_eq!((imported.exports, imported.refused.len()), (1, 0));
    to.assert_sound().await;
}
