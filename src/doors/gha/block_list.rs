//! The body of Put Block List: which blocks, and in which order.
//!
//! `<BlockList><Latest>id</Latest>…</BlockList>`
//! (learn.microsoft.com/rest/api/storageservices/put-block-list). Ids are what
//! the client made them: base64 there, and nothing but a name here.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::cache::entries::{MAX_BLOCK_NAME, MAX_BLOCKS};

/// The longest list, in bytes: with so many of the longest ids that real
/// clients make.
pub const MAX_BODY: usize = 8 << 20;

/// Why a body is no list of blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidList {
    /// It is not XML, or not of this shape.
    #[error("the body is no list of blocks: {0}")]
    Shape(&'static str),
    /// More of them.
    #[error("a list names at most {MAX_BLOCKS} blocks")]
    TooMany,
    /// Empty, too long, or not what a header or a query could hold.
    #[error("an id of a block has 1 to {MAX_BLOCK_NAME} letters of base64")]
    Id,
}

/// Where a reader is.
enum At {
    Before,
    List,
    Id(String),
    Behind,
}

/// Reads a list. What XML could have besides (entities, a document type,
/// comments within an id) no client of this writes, and is refused.
pub fn parse(body: &[u8]) -> Result<Vec<String>, InvalidList> {
    let mut reader = Reader::from_reader(body);
    let mut at = At::Before;
    let mut ids = Vec::new();
    loop {
        let event = reader.read_event();
        let event = event.map_err(|_| InvalidList::Shape("it is not XML"))?;
        at = match (at, event) {
            (at, Event::Decl(_) | Event::Comment(_)) if !matches!(at, At::Id(_)) => at,
            (At::Before, Event::Start(tag)) if tag.name().as_ref() == b"BlockList" => At::List,
            (At::Before, Event::Empty(tag)) if tag.name().as_ref() == b"BlockList" => At::Behind,
            (At::List, Event::Start(tag)) if is_entry(tag.name().as_ref()) => {
                if ids.len() >= MAX_BLOCKS {
                    return Err(InvalidList::TooMany);
                }
                At::Id(String::new())
            }
            (At::List, Event::End(_)) => At::Behind,
            (At::Id(mut id), Event::Text(text)) => {
                let text = text.decode().map_err(|_| InvalidList::Id)?;
                id.push_str(&text);
                At::Id(id)
            }
            (At::Id(id), Event::End(_)) => {
                let id = id.trim();
                if !is_id(id) {
                    return Err(InvalidList::Id);
                }
                ids.push(id.to_owned());
                At::List
            }
            (at @ (At::Before | At::List | At::Behind), Event::Text(text))
                if text.iter().all(u8::is_ascii_whitespace) =>
            {
                at
            }
            (At::Behind, Event::Eof) => return Ok(ids),
            (_, Event::Eof) => return Err(InvalidList::Shape("it ends too early")),
            _ => return Err(InvalidList::Shape("something else is in it")),
        };
    }
}

/// `Latest` is what clients say; to Azure the others tell where to look, and
/// here there is one place.
fn is_entry(name: &[u8]) -> bool {
    matches!(name, b"Latest" | b"Uncommitted" | b"Committed")
}

/// Whether a text can be the id of a block.
pub fn is_id(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte);
    (1..=MAX_BLOCK_NAME).contains(&id.len()) && id.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_come_in_the_lists_order() {
        let body = b"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<BlockList>\n <Latest>Yg==</Latest><Latest>YQ==</Latest>\n <Uncommitted>Yz0=</Uncommitted></BlockList>\n";
        assert_eq!(parse(body).unwrap(), ["Yg==", "YQ==", "Yz0="]);
        assert_eq!(parse(b"<BlockList></BlockList>").unwrap(), [""; 0]);
        assert_eq!(parse(b"<BlockList/>").unwrap(), [""; 0]);
    }

    #[test]
    fn what_no_client_writes_is_refused() {
        for body in [
            "",
            "{}",
            "<BlockList>",
            "<BlockList><Latest>YQ==</BlockList>",
            "<BlockList><Latest>YQ==</Latest>",
            "<BlockList><Newest>YQ==</Newest></BlockList>",
            "<Other><Latest>YQ==</Latest></Other>",
            "<BlockList>YQ==</BlockList>",
            "<BlockList></BlockList><BlockList></BlockList>",
            "<!DOCTYPE x [<!ENTITY a \"b\">]><BlockList></BlockList>",
            "<BlockList><Latest>&lt;</Latest></BlockList>",
            "<BlockList><Latest>&a;</Latest></BlockList>",
            "<BlockList><Latest><![CDATA[YQ==]]></Latest></BlockList>",
            "<BlockList><Latest><b>YQ==</b></Latest></BlockList>",
        ] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
        for id in [
            "",
            " ",
            "a b",
            "a\u{e4}",
            "x<",
            &"x".repeat(MAX_BLOCK_NAME + 1),
        ] {
            let body = format!("<BlockList><Latest>{id}</Latest></BlockList>");
            assert!(parse(body.as_bytes()).is_err(), "{id}");
        }
    }

    #[test]
    fn there_are_no_more_blocks_than_azure_takes() {
        let list = |many| {
            let entries = "<Latest>YQ==</Latest>".repeat(many);
            parse(format!("<BlockList>{entries}</BlockList>").as_bytes())
        };
        assert_eq!(list(MAX_BLOCKS).unwrap().len(), MAX_BLOCKS);
        assert_eq!(list(MAX_BLOCKS + 1), Err(InvalidList::TooMany));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_list_or_an_error(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }

        #[test]
        fn ids_are_kept_as_they_are(ids in prop::collection::vec("[A-Za-z0-9+/]{1,40}={0,2}", 0..20)) {
            let entries: String = ids.iter().map(|id| format!("<Latest>{id}</Latest>")).collect();
            let body = format!("<BlockList>{entries}</BlockList>");
            prop_assert_eq!(parse(body.as_bytes()).unwrap(), ids);
        }
    }
}
