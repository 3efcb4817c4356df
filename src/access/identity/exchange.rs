//! A CI's identity for a token of ours (RFC 8693).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::super::token::{Minted, NewToken};
use super::super::{Access, RefPattern};
use super::config::{Config, Issuer};
use super::keyring::Keyring;
use super::presented::Presented;
use super::rejected::{Outcome, Rejected};
use super::rule::Rule;
use super::template::shortened;
use crate::catalog::Catalog;
use crate::catalog::ledger::{self, Action, Actor, Details, NewAudit, Origin};
use crate::telemetry::metrics::Label as _;

/// Exchanges identities by the rules of a hub.
pub struct Exchange {
    issuers: BTreeMap<String, (Issuer, Keyring)>,
    rules: Vec<Rule>,
    access: Arc<Access>,
    catalog: Arc<dyn Catalog>,
    metrics: Metrics,
}

/// What a client wants of all that is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// To read what may be read.
    pub read: bool,
    /// To write what may be written.
    pub write: bool,
}

/// A token, and what it is for.
#[derive(Clone, Debug)]
pub struct Exchanged {
    /// The token.
    pub minted: Minted,
    /// What it grants.
    pub granted: NewToken,
    /// The rule that it was granted by.
    pub rule: String,
}

/// What is counted of exchanges: by rule, of which there are as many as in the
/// file, and by outcome. Clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    exchanges: Family<Vec<(&'static str, String)>, Counter<u64, AtomicU64>>,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for outcome in Outcome::ALL {
            drop(metrics.series("none", *outcome));
        }
        registry.register(
            "layerd_token_exchanges",
            "Identities that were to be exchanged for a token: by the rule that matched, and what came of it",
            metrics.exchanges.clone(),
        );
        metrics
    }

    fn series(&self, rule: &str, outcome: Outcome) -> Counter<u64, AtomicU64> {
        let labels = vec![
            ("rule", rule.to_owned()),
            (Outcome::NAME, outcome.value().to_owned()),
        ];
        self.exchanges.get_or_create_owned(&labels)
    }
}

impl Exchange {
    /// By the tables of `config`; `access` signs, and the audit log of `catalog`
    /// tells. Reads the keys that are files and fetches none yet.
    pub fn open(
        config: &Config,
        access: Arc<Access>,
        catalog: Arc<dyn Catalog>,
        metrics: Metrics,
    ) -> Result<Self, String> {
        let mut issuers = BTreeMap::new();
        for (url, issuer) in &config.issuers {
            let keyring =
                Keyring::open(issuer).map_err(|why| format!("issuer {:?}: {why}", issuer.name))?;
            issuers.insert(url.clone(), (issuer.clone(), keyring));
        }
        for rule in &config.rules {
            drop(metrics.series(&rule.name, Outcome::Granted));
            drop(metrics.series(&rule.name, Outcome::Unfit));
        }
        Ok(Self {
            issuers,
            rules: config.rules.clone(),
            access,
            catalog,
            metrics,
        })
    }

    /// Whether the keys of each issuer are to be had: its name and URL, and how
    /// many there are, or why there are none.
    pub async fn look(&self) -> Vec<(String, Result<usize, String>)> {
        let looked = self.issuers.values().map(|(issuer, keyring)| async {
            let shown = format!("{} ({})", issuer.name, issuer.url);
            (shown, keyring.look().await)
        });
        futures::future::join_all(looked).await
    }

    /// The token that an identity gets now, asked for from `peer`. All that was
    /// wrong with it is counted, and logged without the identity token itself.
    pub async fn exchange(
        &self,
        identity: &str,
        wanted: Wanted,
        peer: Option<SocketAddr>,
    ) -> Result<Exchanged, Rejected> {
        let times = (Timestamp::now(), Instant::now());
        let (rule, exchanged) = self.decide(identity, wanted, times).await;
        let rule = rule.map_or("none", |rule| rule.name.as_str());
        let outcome = match &exchanged {
            Ok(_) => Outcome::Granted,
            Err(rejected) => rejected.outcome(),
        };
        self.metrics.series(rule, outcome).inc();
        match &exchanged {
            Ok(exchanged) => tracing::info!(
                rule,
                subject = exchanged.granted.subject,
                project = %exchanged.granted.project,
                token = exchanged.minted.id,
                "an identity was exchanged for a token"
            ),
            Err(Rejected::Unavailable(issuer, why)) => {
                tracing::info!(rule, issuer, why, "an identity got no token");
            }
            Err(rejected) => tracing::info!(rule, why = %rejected, "an identity got no token"),
        }
        if let Ok(exchanged) = &exchanged {
            self.note(exchanged, peer).await;
        }
        exchanged
    }

    /// Has the audit log tell it.
    async fn note(&self, exchanged: &Exchanged, peer: Option<SocketAddr>) {
        let granted = &exchanged.granted;
        let patterns = |refs: &[RefPattern]| {
            let refs: Vec<&str> = refs.iter().map(RefPattern::as_str).collect();
            refs.join(" ")
        };
        let actor = Actor::Token {
            subject: granted.subject.clone(),
            id: exchanged.minted.id.clone(),
        };
        let origin = Origin {
            peer,
            ..Origin::here(actor)
        };
        let entry = NewAudit {
            project: Some(granted.project.clone()),
            details: Details::default()
                .with("rule", exchanged.rule.as_str())
                .with("read", patterns(&granted.read))
                .with("write", patterns(&granted.write))
                .with("expires", exchanged.minted.expires.to_string()),
            ..NewAudit::new(&origin, Action::Exchange)
        };
        ledger::tell(&entry, self.catalog.note(&entry)).await;
    }

    async fn decide(
        &self,
        identity: &str,
        wanted: Wanted,
        (now, instant): (Timestamp, Instant),
    ) -> (Option<&Rule>, Result<Exchanged, Rejected>) {
        let (presented, issuer) = match self.verified(identity, (now, instant)).await {
            Ok(verified) => verified,
            Err(rejected) => return (None, Err(rejected)),
        };
        let mut rules = self.rules.iter().filter(|rule| rule.issuer == issuer.name);
        let Some(rule) = rules.find(|rule| rule.mismatch(&presented.claims).is_none()) else {
            return (None, Err(Rejected::NoRule(presented.told())));
        };
        (Some(rule), self.mint(rule, &presented, wanted, now))
    }

    async fn verified<'a>(
        &self,
        identity: &'a str,
        (now, instant): (Timestamp, Instant),
    ) -> Result<(Presented<'a>, &Issuer), Rejected> {
        let presented = Presented::read(identity)?;
        let known = self.issuers.get(&presented.issuer);
        let (issuer, keyring) =
            known.ok_or_else(|| Rejected::Issuer(shortened(&presented.issuer)))?;
        // What no key here could have signed is worth no fetch.
        if presented.algorithm.is_none() {
            return Err(Rejected::Algorithm);
        }
        let key = keyring.key(&presented.kid, instant).await?;
        presented.check_signature(&key, issuer)?;
        presented.check_claims(issuer, now)?;
        Ok((presented, issuer))
    }

    fn mint(
        &self,
        rule: &Rule,
        presented: &Presented<'_>,
        wanted: Wanted,
        now: Timestamp,
    ) -> Result<Exchanged, Rejected> {
        let mut granted = rule.grant(&presented.claims)?;
        if !wanted.read {
            granted.read.clear();
        }
        if !wanted.write {
            granted.write.clear();
        }
        if granted.read.is_empty() && granted.write.is_empty() {
            return Err(Rejected::Scope("the rule that matches grants none of it"));
        }
        let minted = self.access.mint(&granted, now)?;
        Ok(Exchanged {
            minted,
            granted,
            rule: rule.name.clone(),
        })
    }
}
