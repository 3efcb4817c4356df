//! What BuildKit calls an import.
//!
//! `cmKey` of `solver/llbsolver/bridge.go` names an import by its type and a
//! hash of all of its attributes, by github.com/gohugoio/hashstructure; a
//! vertex has the name, and its digest is that of the name. Only so can our
//! import be told from another of the same type. A BuildKit that hashes in
//! another way costs no more than the title.

use super::rewrite::Entry;

/// What BuildKit has before the name of an import, in that of its vertex.
pub const IMPORTING: &str = "importing cache manifest from ";

/// The name of the vertex that loads the cache of `entry`, which is of a type
/// other than `registry`: those go by their `ref`.
pub fn vertex_name(entry: &Entry) -> String {
    let attributes = entry
        .attributes
        .iter()
        .map(|(key, value)| ordered(hash(key.as_bytes()), hash(value.as_bytes())))
        .fold(0, |all, one| all ^ one);
    let fields = [
        ("Type", hash(entry.kind.as_bytes())),
        ("Attrs", finished(attributes)),
    ];
    let id = fields
        .into_iter()
        .fold(hash(b"CacheOptionsEntry"), |all, (name, value)| {
            finished(all ^ ordered(hash(name.as_bytes()), value))
        });
    format!("{IMPORTING}{}:{id}", entry.kind)
}

/// FNV-1, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes.iter().fold(OFFSET, |hash, byte| {
        hash.wrapping_mul(PRIME) ^ u64::from(*byte)
    })
}

fn ordered(first: u64, second: u64) -> u64 {
    let mut both = [0; 16];
    both[..8].copy_from_slice(&first.to_le_bytes());
    both[8..].copy_from_slice(&second.to_le_bytes());
    hash(&both)
}

fn finished(value: u64) -> u64 {
    hash(&value.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_named_as_buildkit_names_it() {
        let attributes = [("bucket", "b"), ("region", "local")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let entry = Entry {
            kind: "s3".to_owned(),
            attributes: attributes.into(),
        };
        assert_eq!(
            vertex_name(&entry),
            "importing cache manifest from s3:338901793737924199"
        );
    }
}
