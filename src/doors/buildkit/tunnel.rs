//! The byte stream inside `Control/Session`.
//!
//! A session is a gRPC stream of `BytesMessage { data = 1 }` each way, and the
//! data, put together, is an HTTP/2 connection of its own. [`TunnelReader`] and
//! [`TunnelWriter`] are the two ends of that byte stream. A build context goes
//! through here, so no message is ever assembled: payload bytes are handed on
//! as the frames bring them.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use prost::encoding::{encode_varint, encoded_len_varint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::PollSender;

use super::grpc::{BoxError, Sender};

/// `data`, field 1 of `BytesMessage`, length-delimited.
const DATA_KEY: u8 = 0x0a;
/// The most that goes into one message; peers take far more.
const MAX_DATA: usize = 256 << 10;

/// How a stream ended, once it has.
#[derive(Clone, Debug, Default)]
pub struct Ending(Arc<Ended>);

#[derive(Debug, Default)]
struct Ended {
    over: AtomicBool,
    trailers: Mutex<Option<HeaderMap>>,
}

impl Ending {
    /// The trailers, if they have come.
    pub fn trailers(&self) -> Option<HeaderMap> {
        self.0
            .trailers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_trailers(&self, trailers: HeaderMap) {
        *self
            .0
            .trailers
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(trailers);
    }

    fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    fn set_over(&self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Reads the bytes out of a body of `BytesMessage`s.
pub struct TunnelReader<B> {
    body: B,
    chunk: Bytes,
    state: State,
    /// Bytes of the current message that are still to come.
    left: usize,
    ending: Ending,
}

/// Where in the stream the next byte falls.
enum State {
    /// In the five bytes before a message.
    Prefix(Prefix),
    /// At a field's key.
    Key(Varint),
    /// In the length of a length-delimited field; `true` for `data`.
    Length(bool, Varint),
    /// In the value of a varint field.
    Value(Varint),
    /// In the payload.
    Data(usize),
    /// In something that is no payload.
    Skip(usize),
}

#[derive(Default)]
struct Prefix {
    bytes: [u8; 5],
    filled: usize,
}

#[derive(Default)]
struct Varint {
    value: u64,
    shift: u32,
}

impl Varint {
    /// Takes one more byte; gives the value after the last.
    fn push(&mut self, byte: u8) -> io::Result<Option<u64>> {
        if self.shift > 63 {
            return Err(malformed("a varint of more than ten bytes"));
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

impl<B> TunnelReader<B> {
    /// Reads `body`; the second value tells in the end how it ended.
    pub fn new(body: B) -> (Self, Ending) {
        let ending = Ending::default();
        let state = State::Prefix(Prefix::default());
        let reader = Self {
            body,
            chunk: Bytes::new(),
            state,
            left: 0,
            ending: ending.clone(),
        };
        (reader, ending)
    }

    /// Takes what is at hand, up to and without the next payload byte.
    /// `true`: the next byte is payload.
    fn advance(&mut self) -> io::Result<bool> {
        loop {
            if let State::Data(length) = self.state {
                if length > 0 {
                    return Ok(!self.chunk.is_empty());
                }
                self.state = self.after_field();
            }
            if let State::Skip(length) = &mut self.state {
                let skipped = (*length).min(self.chunk.len());
                self.chunk.advance(skipped);
                *length -= skipped;
                if *length > 0 {
                    return Ok(false);
                }
                self.state = self.after_field();
            }
            if self.chunk.is_empty() {
                return Ok(false);
            }
            let byte = self.chunk.get_u8();
            self.step(byte)?;
        }
    }

    fn step(&mut self, byte: u8) -> io::Result<()> {
        if !matches!(self.state, State::Prefix(_)) {
            self.left = self
                .left
                .checked_sub(1)
                .ok_or_else(|| malformed("a field beyond its message"))?;
        }
        match &mut self.state {
            State::Prefix(prefix) => {
                prefix.bytes[prefix.filled] = byte;
                prefix.filled += 1;
                if prefix.filled == prefix.bytes.len() {
                    let [compressed, length @ ..] = prefix.bytes;
                    if compressed != 0 {
                        return Err(malformed("a compressed message"));
                    }
                    self.left = u32::from_be_bytes(length) as usize;
                    self.state = self.after_field();
                }
            }
            State::Key(varint) => {
                if let Some(key) = varint.push(byte)? {
                    self.state = match key & 7 {
                        0 => State::Value(Varint::default()),
                        1 => self.skip(8)?,
                        2 => State::Length(key == u64::from(DATA_KEY), Varint::default()),
                        5 => self.skip(4)?,
                        _ => return Err(malformed("an unknown wire type")),
                    };
                }
            }
            State::Value(varint) => {
                if varint.push(byte)?.is_some() {
                    self.state = self.after_field();
                }
            }
            State::Length(is_data, varint) => {
                let is_data = *is_data;
                if let Some(length) = varint.push(byte)? {
                    let length = usize::try_from(length)
                        .map_err(|_| malformed("a field beyond its message"))?;
                    self.state = match (self.skip(length)?, is_data) {
                        (State::Skip(length), true) => State::Data(length),
                        (state, _) => state,
                    };
                }
            }
            // Both are left before a byte is taken.
            State::Data(_) | State::Skip(_) => {}
        }
        Ok(())
    }

    fn skip(&mut self, length: usize) -> io::Result<State> {
        self.left = self
            .left
            .checked_sub(length)
            .ok_or_else(|| malformed("a field beyond its message"))?;
        Ok(State::Skip(length))
    }

    fn after_field(&self) -> State {
        if self.left == 0 {
            State::Prefix(Prefix::default())
        } else {
            State::Key(Varint::default())
        }
    }

    fn between_messages(&self) -> bool {
        matches!(&self.state, State::Prefix(prefix) if prefix.filled == 0)
    }
}

impl<B> AsyncRead for TunnelReader<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            while buf.remaining() > 0 && this.advance()? {
                let State::Data(length) = &mut this.state else {
                    break;
                };
                let taken = (*length).min(this.chunk.len()).min(buf.remaining());
                buf.put_slice(&this.chunk[..taken]);
                this.chunk.advance(taken);
                *length -= taken;
            }
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
            if !matches!(frame, Some(Ok(_))) {
                this.ending.set_over();
            }
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.chunk = data,
                    Err(other) => other
                        .into_trailers()
                        .into_iter()
                        .for_each(|trailers| this.ending.set_trailers(trailers)),
                },
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None if this.between_messages() => return Poll::Ready(Ok(())),
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }
}

/// Writes bytes as `BytesMessage`s into a body's channel; see
/// [`channel`](super::grpc::channel).
///
/// It is broken as soon as the peer has ended its own half: a peer that has
/// hung up reads what still comes with less care (grpc-go's session connection
/// mixes it up, and complains to the user).
pub struct TunnelWriter {
    sender: PollSender<Result<Frame<Bytes>, BoxError>>,
    peer: Ending,
}

impl TunnelWriter {
    /// Feeds the body behind `sender`, until `peer` has ended.
    pub fn new(sender: Sender, peer: Ending) -> Self {
        Self {
            sender: PollSender::new(sender),
            peer,
        }
    }
}

impl AsyncWrite for TunnelWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { sender, peer } = self.get_mut();
        if peer.is_over() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = slices
            .iter()
            .map(|slice| slice.len())
            .sum::<usize>()
            .min(MAX_DATA);
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        ready!(sender.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let message = 1 + encoded_len_varint(length as u64) + length;
        let mut frame = BytesMut::with_capacity(5 + message);
        frame.put_u8(0);
        frame.put_u32(message as u32);
        frame.put_u8(DATA_KEY);
        encode_varint(length as u64, &mut frame);
        let mut left = length;
        for slice in slices {
            let taken = slice.len().min(left);
            frame.put_slice(&slice[..taken]);
            left -= taken;
        }
        sender
            .send_item(Ok(Frame::data(frame.freeze())))
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().sender.close();
        Poll::Ready(Ok(()))
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("malformed session stream: {what}"),
    )
}

#[cfg(test)]
mod tests;
