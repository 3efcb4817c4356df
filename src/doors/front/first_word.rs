//! Which HTTP a client speaks, by the first that it says.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How long a client may take over that.
const LIMIT: Duration = Duration::from_secs(10);
/// What HTTP/2 begins with, and nothing else does (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1, or nothing that is known.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Reads as much as is needed to know it, and gives that back too. A client
/// that says nothing, or byte after byte, keeps no seat.
pub async fn first_word<S>(stream: &mut S) -> io::Result<(Spoken, Vec<u8>)>
where
    S: AsyncRead + Unpin,
{
    let listening = async {
        let mut heard = [0; PREFACE.len()];
        let mut length = 0;
        loop {
            match stream.read(&mut heard[length..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => length += read,
            }
            let spoken = if heard[..length] != PREFACE[..length] {
                Spoken::Http1
            } else if length == PREFACE.len() {
                Spoken::Http2
            } else {
                continue;
            };
            return Ok((spoken, heard[..length].to_vec()));
        }
    };
    let heard = tokio::time::timeout(LIMIT, listening).await;
    heard.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it said nothing"))?
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn the_first_bytes_tell_and_are_kept() {
        for (said, spoken) in [
            (&b"GET / HTTP/1.1\r\n"[..], Spoken::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Spoken::Http2),
            (b"PRI * HTTP/1.1\r\n\r\n", Spoken::Http1),
            (b"P\0", Spoken::Http1),
            (b"\x16\x03\x01", Spoken::Http1),
        ] {
            for at_once in [1, 5, said.len()] {
                let (mut client, mut server) = tokio::io::duplex(said.len());
                let saying = async {
                    for some in said.chunks(at_once) {
                        client.write_all(some).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                };
                let (heard, ()) = tokio::join!(first_word(&mut server), saying);
                let (found, kept) = heard.unwrap();
                assert_eq!(found, spoken, "{said:?}");
                drop(client);
                let mut rest = Vec::new();
                server.read_to_end(&mut rest).await.unwrap();
                assert_eq!([kept, rest].concat(), said);
            }
        }
    }

    #[tokio::test]
    async fn whoever_leaves_early_has_said_nothing() {
        for said in [&b""[..], b"PRI * HTTP"] {
            let (mut client, mut server) = tokio::io::duplex(64);
            client.write_all(said).await.unwrap();
            drop(client);
            let error = first_word(&mut server).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
