//! Bytes on their way in, of which so many clients may send many at a time.
//!
//! Who has sent nothing yet needs no place. With the first bytes one is waited
//! for, before they are passed on; whoever then sends slowly gives it up and goes
//! on without, for that takes no memory to speak of. Nobody waits for a place
//! twice: who waits holds nothing that another one waits for.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};

use crate::access::{Client, Share, Shares};

/// Bytes in a second that keep a place.
const FAST: u64 = 1 << 20;
/// Over how long that is looked at.
const WINDOW: Duration = Duration::from_secs(3);
/// How long one may wait for a place.
pub const TURN: Duration = Duration::from_secs(60);

/// How a body comes.
struct Placed<S> {
    bytes: S,
    places: Shares,
    client: Client,
    place: Place,
    since: Instant,
    came: u64,
}

enum Place {
    Needed,
    Taken { _share: Share },
    GivenUp,
}

/// The same bytes; an error that is [`NoRoom`](crate::access::NoRoom) where there was no place in time.
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
        place: Place::Needed,
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
        let next = match self.place {
            Place::Taken { .. } => match tokio::time::timeout(WINDOW, self.bytes.next()).await {
                Ok(next) => next?,
                Err(_) => {
                    self.place = Place::GivenUp;
                    self.bytes.next().await?
                }
            },
            _ => self.bytes.next().await?,
        };
        let Ok(bytes) = next else {
            return Some(next);
        };
        match self.place {
            Place::Needed => {
                let share = self.places.take_within(TURN, &self.client, 1, "uploads");
                match share.await {
                    Ok(share) => self.place = Place::Taken { _share: share },
                    Err(refused) => return Some(Err(io::Error::other(refused))),
                }
                self.since = Instant::now();
            }
            Place::Taken { .. } => self.look(bytes.len()),
            Place::GivenUp => {}
        }
        Some(Ok(bytes))
    }

    /// Gives the place up where little has come lately.
    fn look(&mut self, came: usize) {
        self.came += came as u64;
        let passed = self.since.elapsed();
        if passed < WINDOW {
            return;
        }
        if self.came < FAST * passed.as_secs() {
            self.place = Place::GivenUp;
        }
        self.since = Instant::now();
        self.came = 0;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::access::NoRoom;

    fn client() -> Client {
        Client::At(None)
    }

    fn large() -> Bytes {
        Bytes::from(vec![0; 2 << 20])
    }

    #[tokio::test]
    async fn the_first_bytes_wait_for_a_place_and_silence_for_none() {
        let places = Shares::halved(1);
        let held = places.take(&client(), 1).await.unwrap();
        let silent = stream::pending();
        let mut silent = Box::pin(placed(silent, &places, &client()));
        assert!(silent.next().now_or_never().is_none());
        assert!(!places.is_wanted());

        let bytes = stream::iter([Ok(large()), Ok(large())]);
        let mut bytes = Box::pin(placed(bytes, &places, &client()));
        assert!(bytes.next().now_or_never().is_none());
        assert!(places.is_wanted());
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
