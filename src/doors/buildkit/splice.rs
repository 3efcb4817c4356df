//! Edits a protobuf message on the wire, field by field.
//!
//! A message that is decoded and encoded again loses every field that the
//! decoder does not know. BuildKit adds fields with each release, so what this
//! door edits is spliced instead: a field that is kept is copied byte for byte,
//! known or not, canonical or not.

use bytes::{Buf, BufMut};
use prost::encoding::{
    WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint,
};

/// Bytes that are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf message")]
pub struct Malformed;

/// What becomes of one field.
pub enum Edit {
    /// It stays as it is.
    Keep,
    /// It goes.
    Drop,
    /// Its content, that of a length-delimited field, is replaced.
    Replace(Vec<u8>),
}

/// Copies `message`, asking `edit` about every length-delimited field: its
/// number and content. Fields of other wire types are kept.
pub fn splice<E: From<Malformed>>(
    message: &[u8],
    edit: impl FnMut(u32, &[u8]) -> Result<Edit, E>,
) -> Result<Vec<u8>, E> {
    Ok(spliced(message, edit)?.unwrap_or_else(|| message.to_vec()))
}

/// The same, or `None` where every field is kept: nothing is copied then.
pub fn spliced<E: From<Malformed>>(
    message: &[u8],
    mut edit: impl FnMut(u32, &[u8]) -> Result<Edit, E>,
) -> Result<Option<Vec<u8>>, E> {
    let mut edited: Option<Vec<u8>> = None;
    let mut kept = 0;
    for field in fields(message) {
        let field = field?;
        let edit = match field.content {
            Some(content) => edit(field.number, content)?,
            None => Edit::Keep,
        };
        let out = match (&mut edited, &edit) {
            (None, Edit::Keep) => {
                kept += field.whole.len();
                continue;
            }
            (edited, _) => edited.get_or_insert_with(|| message[..kept].to_vec()),
        };
        match edit {
            Edit::Keep => out.put_slice(field.whole),
            Edit::Drop => {}
            Edit::Replace(content) => put_field(out, field.number, &content),
        }
    }
    Ok(edited)
}

/// Appends a length-delimited field.
pub fn put_field(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    out.reserve(content.len() + encoded_len_varint(content.len() as u64) + 5);
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.put_slice(content);
}

/// One field as it stands on the wire.
struct Field<'a> {
    number: u32,
    /// Key and content.
    whole: &'a [u8],
    /// The content of a length-delimited field.
    content: Option<&'a [u8]>,
}

fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, Malformed>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let start = rest;
        let field = read_field(&mut rest).map(|(number, content)| Field {
            number,
            whole: &start[..start.len() - rest.len()],
            content,
        });
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn read_field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Option<&'a [u8]>), Malformed> {
    let (number, wire_type) = decode_key(rest).map_err(|_| Malformed)?;
    let content = match wire_type {
        WireType::LengthDelimited => {
            let length = decode_varint(rest).map_err(|_| Malformed)?;
            Some(take(rest, length)?)
        }
        WireType::Varint => {
            decode_varint(rest).map_err(|_| Malformed)?;
            None
        }
        WireType::ThirtyTwoBit => take(rest, 4).map(|_| None)?,
        WireType::SixtyFourBit => take(rest, 8).map(|_| None)?,
        // Groups were gone before BuildKit's first message was written.
        WireType::StartGroup | WireType::EndGroup => return Err(Malformed),
    };
    Ok((number, content))
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let taken = rest.get(..length).ok_or(Malformed)?;
    rest.advance(length);
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A field of any number and wire type, encoded.
    fn any_field() -> impl Strategy<Value = (u32, Vec<u8>)> {
        let number = prop_oneof![1u32..20, Just(prost::encoding::MAX_TAG)];
        (number, 0..4, any::<u64>(), any::<Vec<u8>>()).prop_map(|(number, kind, value, bytes)| {
            let mut out = Vec::new();
            match kind {
                0 => {
                    encode_key(number, WireType::Varint, &mut out);
                    encode_varint(value, &mut out);
                }
                1 => {
                    encode_key(number, WireType::SixtyFourBit, &mut out);
                    out.put_u64_le(value);
                }
                2 => {
                    encode_key(number, WireType::ThirtyTwoBit, &mut out);
                    out.put_u32_le(value as u32);
                }
                _ => put_field(&mut out, number, &bytes),
            }
            (number, out)
        })
    }

    proptest! {
        #[test]
        fn what_is_kept_is_kept_byte_for_byte(fields in proptest::collection::vec(any_field(), 0..20)) {
            let message: Vec<u8> = fields.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            let copy = splice::<Malformed>(&message, |_, _| Ok(Edit::Keep)).unwrap();
            prop_assert_eq!(&copy, &message);
            prop_assert_eq!(spliced::<Malformed>(&message, |_, _| Ok(Edit::Keep)), Ok(None));
        }

        #[test]
        fn only_the_edited_field_changes(fields in proptest::collection::vec(any_field(), 0..20), edited in 1u32..20) {
            let message: Vec<u8> = fields.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            let got = splice::<Malformed>(&message, |number, _| {
                Ok(if number == edited { Edit::Replace(b"new".to_vec()) } else { Edit::Keep })
            }).unwrap();
            let want: Vec<u8> = fields.iter().flat_map(|(number, bytes)| {
                let delimited = decode_key(&mut bytes.as_slice()).unwrap().1 == WireType::LengthDelimited;
                if *number == edited && delimited {
                    let mut out = Vec::new();
                    put_field(&mut out, *number, b"new");
                    out
                } else {
                    bytes.clone()
                }
            }).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn any_bytes_are_copied_or_refused(bytes in any::<Vec<u8>>()) {
            if let Ok(copy) = splice::<Malformed>(&bytes, |_, _| Ok(Edit::Keep)) {
                prop_assert_eq!(copy, bytes);
            }
        }
    }

    #[test]
    fn a_length_beyond_the_message_is_malformed() {
        let mut message = Vec::new();
        encode_key(1, WireType::LengthDelimited, &mut message);
        encode_varint(u64::MAX, &mut message);
        assert_eq!(
            splice::<Malformed>(&message, |_, _| Ok(Edit::Keep)),
            Err(Malformed)
        );
    }
}
