//! Bytes come out as they went in, whatever the frames.

use http_body_util::StreamBody;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::grpc;
use super::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

async fn read(wire: &[u8], chunk: usize) -> io::Result<Vec<u8>> {
    let frames: Vec<Result<Frame<Bytes>, BoxError>> = wire
        .chunks(chunk.max(1))
        .map(|bytes| Ok(Frame::data(Bytes::copy_from_slice(bytes))))
        .collect();
    let (mut reader, _) = TunnelReader::new(StreamBody::new(futures::stream::iter(frames)));
    let mut out = Vec::new();
    reader.read_to_end(&mut out).await?;
    Ok(out)
}

proptest! {
    #[test]
    fn bytes_come_out_as_they_went_in(writes in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
        let want = writes.concat();
        let got = block_on(async {
            let (sender, body) = grpc::channel(64);
            let mut writer = TunnelWriter::new(sender, Ending::default());
            for bytes in &writes {
                writer.write_all(bytes).await.unwrap();
            }
            writer.shutdown().await.unwrap();
            drop(writer);
            let (mut reader, _) = TunnelReader::new(body);
            let mut out = Vec::new();
            reader.read_to_end(&mut out).await.unwrap();
            out
        });
        prop_assert_eq!(got, want);
    }

    #[test]
    fn only_data_is_payload(data in any::<Vec<u8>>(), number in any::<u64>(), other in any::<Vec<u8>>(), chunk in 1usize..9) {
        let mut message = Vec::new();
        message.push(0x10);
        encode_varint(number, &mut message);
        super::super::splice::put_field(&mut message, 1, &data);
        super::super::splice::put_field(&mut message, 9, &other);
        message.extend_from_slice(&[0x1d, 1, 2, 3, 4]);
        let wire = [grpc::frame(&message), grpc::frame(&[]), grpc::frame(&message)].concat();
        prop_assert_eq!(block_on(read(&wire, chunk)).unwrap(), [data.clone(), data].concat());
    }

    #[test]
    fn any_bytes_are_read_or_refused(wire in any::<Vec<u8>>(), chunk in 1usize..40) {
        let _ = block_on(read(&wire, chunk));
    }
}

#[test]
fn a_field_longer_than_its_message_is_refused() {
    let wire = grpc::frame(&[DATA_KEY, 100, 1, 2]);
    assert_eq!(
        block_on(read(&wire, 99)).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}

#[test]
fn an_end_inside_a_message_is_no_clean_end() {
    let wire = grpc::frame(&[DATA_KEY, 2, 1, 2]);
    assert_eq!(
        block_on(read(&wire[..8], 99)).unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}
