//! A hub that ends between the blocks of an upload and its end.

use super::ask::{Ask, VERSION};
use crate::harness::{Lab, layerd};
use crate::hub::noise;

#[tokio::test]
async fn nothing_is_seen_of_an_upload_that_a_killed_hub_has_not_finished() {
    let lab = Lab::new();
    let mut hub = lab.hub("hub").start().await;
    let ask = Ask::new(hub.url(), None);
    let (one, two) = (noise(1, 3 << 20), noise(2, 2 << 20));
    let url = ask.reserved("key", VERSION).await;
    ask.put_block(&url, "1", one.clone()).await.is(201);
    ask.put_block(&url, "2", two.clone()).await.is(201);
    hub.kill().await;
    let hub = hub.restart().await;
    let ask = Ask::new(hub.url(), None);
    assert_eq!(ask.find(&["key", "k"], VERSION).await, None);
    let dir = hub.data_dir().display().to_string();
    let list = ["cache", "ls", "--json", "--data-dir", &dir];
    let listed = layerd(list).await.ok().stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert!(!listed.to_string().contains("actions-cache"), "{listed}");
    // Whoever still has the address goes on, at any hub.
    ask.put_list(&url, &["1", "2"]).await.is(201);
    assert_eq!(ask.find(&["key"], VERSION).await, None);
    ask.finalize("key", VERSION, 5 << 20).await.is(200);
    let restored = ask.restored(&["key"], VERSION).await.unwrap();
    assert!(restored == [one, two].concat());
    let fsck = layerd(["cache", "fsck", "--data-dir", &dir]).await;
    fsck.ok();
}
