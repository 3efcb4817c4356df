//! The keys that count here.
//!
//! A file, or a folder of which every file counts that is not hidden (a name
//! with a dot in front). Several keys at once are how keys are rotated: a token
//! names the one that it was signed with, so the new key is given to every hub
//! first, used for signing next, and the old one is taken away when the last
//! token of its time has expired. The files are read again when they change; if
//! they can't be used then, the keys from before stay.
//!
//! Public keys only verify. Of the others the newest signs: the one whose file
//! was changed last, and among equals the one whose name sorts last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;

use super::denied::Denied;
use super::grant::Grant;
use super::key::Key;
use super::key_file::{self, KeyError};
use super::signatures;
use super::token::{self, MintError, Minted, NewAdminToken, NewToken};
use super::verified::Verified;
use crate::digest::Digest;
use crate::watched::Watched;

/// Keys that are read again when their files change.
pub struct Keys(Watched<KeySet>);

impl Keys {
    /// Reads a file or a folder.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let from = path.to_owned();
        Watched::open([path.to_owned()], move || KeySet::read(&from)).map(Self)
    }

    /// What a token grants, if it counts at `now`.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Grant>, Denied> {
        self.0.current().verify(token, now)
    }

    /// Signs a token with the newest key.
    pub fn mint(&self, new: &NewToken, now: Timestamp) -> Result<Minted, MintError> {
        let set = self.0.current();
        token::mint(set.signer().ok_or(MintError::NoKey)?, new, now)
    }

    /// Signs an admin token with it.
    pub fn mint_admin(&self, new: &NewAdminToken, now: Timestamp) -> Result<Minted, MintError> {
        let set = self.0.current();
        token::mint_admin(set.signer().ok_or(MintError::NoKey)?, new, now)
    }

    /// The name of the key that signs, if there is a private one.
    pub fn signer(&self) -> Option<String> {
        self.0.current().signer().map(|key| key.kid.clone())
    }

    /// The names of all keys.
    pub fn names(&self) -> Vec<String> {
        self.0.current().keys.keys().cloned().collect()
    }

    /// Looks now whether the files have changed.
    pub fn look(&self) {
        self.0.look();
    }
}

/// The keys of one reading.
pub struct KeySet {
    keys: BTreeMap<String, Key>,
    signer: Option<String>,
    verified: Verified,
}

impl KeySet {
    fn read(path: &Path) -> Result<Self, KeyError> {
        signatures::install();
        let mut keys = BTreeMap::<String, Key>::new();
        let mut signer: Option<(SystemTime, String)> = None;
        for file in files(path)? {
            let written = std::fs::metadata(&file).and_then(|file| file.modified());
            let written = written.map_err(|error| KeyError::new(&file, error))?;
            for key in key_file::read(&file)? {
                let kid = key.kid.clone();
                if key.encoding.is_some() {
                    signer = signer.max(Some((written, kid.clone())));
                }
                match keys.get_mut(&kid) {
                    None => {
                        keys.insert(kid, key);
                    }
                    // A private key beside its public one.
                    Some(known) if known.is_like(&key) => {
                        known.encoding = known.encoding.take().or(key.encoding);
                    }
                    Some(_) => {
                        let why = format!("another key has the name {kid:?} already");
                        return Err(KeyError::new(&file, why));
                    }
                }
            }
        }
        if keys.is_empty() {
            return Err(KeyError::new(path, "no key is in it"));
        }
        Ok(Self {
            keys,
            signer: signer.map(|(_, kid)| kid),
            verified: Verified::default(),
        })
    }

    fn signer(&self) -> Option<&Key> {
        self.keys.get(self.signer.as_deref()?)
    }

    /// The key with that name.
    pub fn get(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }

    fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Grant>, Denied> {
        token::bounded(token)?;
        let digest = Digest::of(token.as_bytes());
        if let Some(grant) = self.verified.get(&digest) {
            grant.check_time(now)?;
            return Ok(grant);
        }
        let grant = Arc::new(token::verify(self, token, now)?);
        self.verified.keep(digest, grant.clone());
        Ok(grant)
    }
}

/// The file itself, or the files of a folder that are not hidden.
fn files(path: &Path) -> Result<Vec<PathBuf>, KeyError> {
    let failed = |error| KeyError::new(path, error);
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
