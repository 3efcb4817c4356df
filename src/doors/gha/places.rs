//! Bytes on their way in, of which so many clients may send many at a time.
//!
//! What comes slowly is taken at once, and takes no memory to speak of; it needs
//! no place, and so keeps nobody from one. What comes fast waits for a place
//! before more of it is read, and gives it up once it has become slow.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};

use crate::access::{Client, NoRoom, Share, Shares};

/// Bytes in a second that need no place.
const SLOW: u64 = 1 << 20;
/// Over how long that is looked at.
const WINDOW: Duration = Duration::from_secs(3);
/// How long one may wait for a place.
pub const TURN: Duration = Duration::from_secs(60);

/// How a body comes, and its place where it has one.
struct Placed<S> {
    bytes: S,
    places: Shares,
    client: Client,
    place: Option<Share>,
    since: Instant,
    came: u64,
}

/// The same bytes; an error that is [`NoRoom`] where there was no place in time.
pub fn placed<S>(
    bytes: S,
    places: &Shares,
    client: &Client,
) -> impl Stream<Item = io::Result<Bytes>> + use<S>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let placed = Placed {
        bytes,
        places: places.clone(),
        client: client.clone(),
        place: None,
        since: Instant::now(),
        came: 0,
    };
    stream::unfold(Some(placed), |placed| async {
        let mut placed = placed?;
        match placed.next().await? {
            Ok(bytes) => Some((Ok(bytes), Some(placed))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Placed<S> {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let next = match tokio::time::timeout(WINDOW, self.bytes.next()).await {
            Ok(next) => next?,
            Err(_) => {
                self.place = None;
                self.bytes.next().await?
            }
        };
        if let Ok(bytes) = &next {
            self.came += bytes.len() as u64;
            if let Err(refused) = self.look().await {
                return Some(Err(io::Error::other(refused)));
            }
        }
        Some(next)
    }

    /// Takes a place, or gives it up.
    async fn look(&mut self) -> Result<(), NoRoom> {
        let passed = self.since.elapsed();
        let is_fast = self.came > SLOW * (1 + passed.as_secs());
        if is_fast && self.place.is_none() {
            let place = self.places.take_within(TURN, &self.client, 1, "uploads");
            self.place = Some(place.await?);
        } else if passed < WINDOW {
            return Ok(());
        } else if !is_fast {
            self.place = None;
        }
        self.since = Instant::now();
        self.came = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn client() -> Client {
        Client::At(None)
    }

    fn large() -> Bytes {
        Bytes::from(vec![0; 2 << 20])
    }

    #[tokio::test]
    async fn what_is_small_waits_for_nobody_and_what_is_large_for_a_place() {
        let places = Shares::halved(1);
        let held = places.take(&client(), 1).await.unwrap();
        let small = stream::iter([Ok(Bytes::from_static(b"small"))]);
        let small = placed(small, &places, &client()).collect::<Vec<_>>();
        assert_eq!(small.await.len(), 1);

        let bytes = stream::iter([Ok(large()), Ok(large())]);
        let mut bytes = Box::pin(placed(bytes, &places, &client()));
        assert!(bytes.next().now_or_never().is_none());
        drop(held);
        assert_eq!(bytes.next().await.unwrap().unwrap(), large());
        assert!(places.try_take(&client()).is_none(), "it has the place");
        drop(bytes);
        assert!(places.try_take(&client()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_becomes_slow_gives_the_place_up_and_who_finds_none_is_told() {
        let places = Shares::halved(1);
        let bytes = stream::iter([Ok(large())]).chain(stream::pending());
        let mut bytes = Box::pin(placed(bytes, &places, &client()));
        bytes.next().await.unwrap().unwrap();
        assert!(places.try_take(&client()).is_none());
        let waiting = tokio::time::timeout(2 * WINDOW, bytes.next()).await;
        assert!(waiting.is_err());
        let held = places.try_take(&client()).expect("it is free");

        let bytes = stream::iter([Ok(large()), Ok(large())]);
        let refused = placed(bytes, &places, &client()).collect::<Vec<_>>().await;
        let [Err(error)] = &refused[..] else {
            panic!("{refused:?}");
        };
        let inner = error.get_ref().unwrap();
        assert!(inner.is::<NoRoom>(), "{error}");
        drop(held);
    }
}
