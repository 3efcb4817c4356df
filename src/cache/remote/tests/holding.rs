//! Who asks for many blobs at once.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn what_an_import_names_is_held_without_asking() {
    let lab = Lab::new().await;
    let layer = content(1, 1000);
    let writer = lab.host().await;
    let digest = writer.upload(&layer).await;
    writer.cache.publish(export(&[layer])).await.unwrap();
    let host = lab.host().await;
    let place = Place::default();
    let import = host.look_up().await.unwrap();
    assert_eq!(host.cache.holds(&place, &digest).await.unwrap(), Some(1000));
    assert_eq!(lab.double.seen().questions, 0);
    let other = Place {
        project: "other".parse().unwrap(),
        ..Place::default()
    };
    assert_eq!(host.cache.holds(&other, &digest).await.unwrap(), None);
    drop(import);
    assert_eq!(host.cache.holds(&place, &digest).await.unwrap(), Some(1000));
    assert_eq!(lab.double.seen().questions, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_asker_gets_its_own_answer(
        held in proptest::collection::btree_set(0_u64..40, 0..20),
        asked in proptest::collection::vec((0_u64..40, any::<bool>()), 1..200),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let lab = Lab::new().await;
            let host = lab.host().await;
            let blob = |seed: u64| content(seed + 1, 100 + usize::try_from(seed).unwrap());
            for seed in &held {
                host.upload(&blob(*seed)).await;
            }
            let place = |main: bool| Place {
                git_ref: if main { "main" } else { "other" }.parse().unwrap(),
                ..Place::default()
            };
            let answers = asked.iter().map(async |(seed, main)| {
                let digest = Digest::of(&blob(*seed));
                host.cache.holds(&place(*main), &digest).await.unwrap()
            });
            let answers = futures::future::join_all(answers).await;
            for ((seed, _), answer) in asked.iter().zip(answers) {
                assert_eq!(answer, held.contains(seed).then_some(100 + seed));
            }
            assert!(lab.double.seen().questions <= 2 + asked.len() as u64 / 8);
        });
    }
}
