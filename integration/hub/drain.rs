//! A hub that is told to close finishes what its clients are in the middle of.

use tokio::net::TcpStream;

use super::ask::{described, look_up, noise, publish};
use super::blobs::{begin, commit, open, piece};
use super::{place, upload};
use crate::harness::{Lab, get, until};

#[tokio::test]
async fn an_export_that_has_begun_comes_to_its_end_while_the_hub_closes() {
    let lab = Lab::new();
    let mut hub = lab.hub("one").start().await;
    let (address, shown_at) = (hub.address().to_owned(), hub.metrics_address().to_owned());
    let mut client = hub.client(None).await;
    let main = place("p", "main");
    let (first, second) = (noise(1, 700_000), noise(2, 300_000));
    let (digest, size) = described(&first);
    let mut begun = begin(&mut client, open(&main, &digest)).await.unwrap();
    assert_eq!(begun.offset().await.unwrap(), Some(0));
    let half = piece(first.slice(..200_000));
    begun.pieces.send(half).await.unwrap();

    let rest = async {
        until("it closes", async || {
            let closing = get(&shown_at, "/readyz").await.0 == 503;
            (closing && TcpStream::connect(&address).await.is_err()).then_some(())
        })
        .await;
        begun
            .pieces
            .send(piece(first.slice(200_000..)))
            .await
            .unwrap();
        begun.pieces.send(commit(&digest, size)).await.unwrap();
        assert_eq!(begun.stored().await.unwrap(), size);
        // Calls that nobody has begun by then.
        assert_eq!(upload(&mut client, &main, &second).await.unwrap(), 300_000);
        let layers = [described(&first), described(&second)];
        publish(&mut client, &main, &layers, "x").await.unwrap();
    };
    let (status, _) = tokio::join!(hub.terminate(), rest);
    assert!(status.success(), "{status}");
    assert!(!hub.log().contains("cut off"), "{}", hub.log());
    let hub = hub.restart().await;
    let mut client = hub.client(None).await;
    let import = look_up(&mut client, &main, false).await.unwrap();
    assert_eq!(import.unwrap().layers.len(), 2);
}
