//! The hubs that builds may name besides the one of this host.

use std::str::FromStr;

use super::address::{HubAddress, InvalidHubAddress};

/// Which hubs a build may name besides the configured one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Any.
    Any,
    /// This one.
    Origin(HubAddress),
}

impl Allowed {
    /// Whether it is among them.
    pub fn allows(&self, address: &HubAddress) -> bool {
        match self {
            Self::Any => true,
            Self::Origin(origin) => origin == address,
        }
    }
}

impl FromStr for Allowed {
    type Err = InvalidHubAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "*" => Ok(Self::Any),
            origin => origin.parse().map(Self::Origin),
        }
    }
}
