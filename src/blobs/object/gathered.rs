//! Bytes of a part, as they are gathered.
//!
//! They lie in pages of their own, which the system has back as soon as the
//! part is sent. Out of the heap, buffers of megabytes that come and go between
//! small things leave holes, which together were as large again as all of them.

use bytes::Bytes;
use memmap2::MmapMut;

use crate::blobs::BlobError;

/// A buffer of a fixed size.
#[derive(Default)]
pub(super) struct Gathered {
    /// None: of no size.
    pages: Option<MmapMut>,
    length: usize,
}

impl Gathered {
    /// Room for so many bytes.
    pub(super) fn with_room(bytes: usize) -> Result<Self, BlobError> {
        let pages = MmapMut::map_anon(bytes).map_err(|source| BlobError::Io {
            context: "there is no memory for an upload".to_owned(),
            source,
        })?;
        Ok(Self {
            pages: Some(pages),
            length: 0,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes as much of `bytes` as there is room for; gives how much.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let pages = self.pages.as_deref_mut().unwrap_or_default();
        let free = pages.get_mut(self.length..).unwrap_or_default();
        let taken = free.len().min(bytes.len());
        free[..taken].copy_from_slice(&bytes[..taken]);
        self.length += taken;
        taken
    }

    /// What was gathered.
    pub(super) fn bytes(&self) -> &[u8] {
        let pages = self.pages.as_deref().unwrap_or_default();
        pages.get(..self.length).unwrap_or_default()
    }

    /// The same, without copying it.
    pub(super) fn into_bytes(self) -> Bytes {
        match self.pages {
            Some(pages) => Bytes::from_owner(pages).slice(..self.length),
            None => Bytes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_comes_out_and_no_more_is_taken_than_there_is_room_for() {
        let mut gathered = Gathered::with_room(10_000).unwrap();
        assert!(gathered.is_empty());
        assert_eq!(gathered.take(&[1; 6_000]), 6_000);
        assert_eq!(gathered.take(&[2; 6_000]), 4_000);
        assert_eq!(gathered.take(&[3]), 0);
        let expected: Vec<u8> = [[1; 6_000].as_slice(), &[2; 4_000]].concat();
        assert_eq!(gathered.bytes(), expected);
        assert_eq!(gathered.into_bytes(), expected);
    }

    #[test]
    fn nothing_has_room_for_nothing() {
        let mut gathered = Gathered::default();
        assert_eq!(gathered.take(&[1]), 0);
        assert_eq!(gathered.len(), 0);
        assert!(gathered.into_bytes().is_empty());
    }
}
