//! Protobuf's wire format, just enough to leave fields out of a message and
//! keep every other byte.

use bytes::Buf as _;

/// The message without the fields for which `drop` says so; it is given the
/// number and, of length-delimited ones, the content.
pub fn without(message: &[u8], mut drop: impl FnMut(u64, &[u8]) -> bool) -> Vec<u8> {
    edit(message, |number, content| {
        if drop(number, content) {
            None
        } else {
            Some(content.to_vec())
        }
    })
}

/// The message with the content of every length-delimited field as `change`
/// gives it, or without the field.
pub fn edit(message: &[u8], mut change: impl FnMut(u64, &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut rest = message;
    let mut out = Vec::with_capacity(message.len());
    while !rest.is_empty() {
        let before = rest;
        let tag = varint(&mut rest);
        match tag & 7 {
            0 => drop(varint(&mut rest)),
            1 => rest.advance(8),
            5 => rest.advance(4),
            2 => {
                let length = usize::try_from(varint(&mut rest)).expect("a length");
                let (content, after) = rest.split_at(length);
                rest = after;
                if let Some(content) = change(tag >> 3, content) {
                    put_varint(&mut out, tag);
                    put_varint(&mut out, content.len() as u64);
                    out.extend_from_slice(&content);
                }
                continue;
            }
            other => panic!("wire type {other}"),
        }
        out.extend_from_slice(&before[..before.len() - rest.len()]);
    }
    out
}

/// The key of an entry of a `map<string, string>`.
pub fn map_key(entry: &[u8]) -> String {
    let mut key = String::new();
    without(entry, |number, content| {
        if number == 1 {
            key = String::from_utf8_lossy(content).into_owned();
        }
        false
    });
    key
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = rest.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a varint of more than ten bytes")
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[test]
fn what_is_not_dropped_stays_as_it_was() {
    // 1: varint 300; 2: "key"; 3: fixed32; 2: "x"
    let message = [
        8, 0xac, 2, 18, 3, b'k', b'e', b'y', 29, 1, 2, 3, 4, 18, 1, b'x',
    ];
    assert_eq!(without(&message, |_, _| false), message);
    let dropped = without(&message, |number, content| number == 2 && content == b"x");
    assert_eq!(dropped, message[..13]);
}
