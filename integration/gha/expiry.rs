//! What was given for a while, when that is over: hubs whose clock is ahead.

use super::ask::{Answer, Ask, VERSION};
use crate::harness::{Hub, Lab};

const HOUR: u64 = 3600;

/// The same hub, so much later.
async fn later(mut hub: Hub, seconds: u64) -> Hub {
    hub.terminate().await;
    hub.restart_as(|spec| spec.ahead(seconds)).await
}

#[track_caller]
fn expired(answer: Answer) {
    let answer = answer.is(403);
    assert_eq!(answer.header("x-ms-error-code"), "AuthenticationFailed");
    let body = answer.json();
    assert_eq!(body["error"]["code"], "AuthenticationFailed");
    let text = "the address has expired: ask for another one";
    assert_eq!(body["error"]["message"], text);
}

#[tokio::test]
async fn an_address_is_good_for_two_hours_and_another_one_is_given_then() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let ask = Ask::new(hub.url(), None);
    ask.save("key", VERSION, "content".into()).await;
    let (_, down) = ask.find(&["key"], VERSION).await.unwrap();
    let up = ask.reserved("other", VERSION).await;
    ask.put_block(&up, "1", "first ").await.is(201);

    let hub = later(hub, 2 * HOUR - 120).await;
    ask.get(&down, &[]).await.is(200);
    // An upload of which nothing comes for an hour has ended before.
    ask.put_block(&up, "2", "second").await.is(404);
    let (_, renewed) = ask.find(&["key"], VERSION).await.unwrap();

    let hub = later(hub, 2 * HOUR + 120).await;
    expired(ask.get(&down, &[]).await);
    let range = [("x-ms-range", "bytes=0-1")];
    expired(ask.get(&down, &range).await);
    expired(ask.put_block(&up, "3", "never").await);
    expired(ask.put_list(&up, &["1", "2"]).await);
    expired(ask.put_whole(&up, "never").await);
    ask.get(&renewed, &[]).await.is(200);
    // By its name, it is finished with what came in time or not at all.
    ask.finalize("other", VERSION, 12).await.is(404);
    assert_eq!(ask.find(&["other"], VERSION).await, None);
    // GitHub's own clients ask again after a 403.
    assert_eq!(ask.restored(&["key"], VERSION).await.unwrap(), "content");
    drop(hub);
}

/// Whoever reserved a key and went away keeps it from others for a while, and
/// not for ever.
#[tokio::test]
async fn a_key_that_nobody_finished_is_free_again_after_a_while() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let ask = Ask::new(hub.url(), None);
    let url = ask.reserved("key", VERSION).await;
    ask.put_block(&url, "1", "left behind").await.is(201);
    ask.create("key", VERSION).await.is(409);
    let _hub = later(hub, HOUR).await;
    ask.save("key", VERSION, "of another".into()).await;
    assert_eq!(ask.restored(&["key"], VERSION).await.unwrap(), "of another");
    // The first one comes back too late.
    ask.put_list(&url, &["1"]).await;
    ask.finalize("key", VERSION, 11).await;
    assert_eq!(ask.restored(&["key"], VERSION).await.unwrap(), "of another");
}
