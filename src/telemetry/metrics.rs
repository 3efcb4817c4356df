//! Metrics with few labels, whose values are all known beforehand.
//!
//! A module that does work owns its metrics: a struct of them, which it counts
//! into and registers. Every series is there from the start, as 0, so that a
//! rate is right from the first event on.

use std::fmt::Debug;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A label: its name, and every value that it can have.
pub trait Label: Copy + 'static {
    /// The name.
    const NAME: &'static str;
    /// Every value.
    const ALL: &'static [Self];

    /// How a value is written.
    fn value(self) -> &'static str;
}

/// The labels of one series: a [`Label`], or a pair of them.
pub trait Labels: Copy {
    /// Every combination.
    fn all() -> Vec<Self>;

    /// Names and values.
    fn pairs(self) -> Pairs;
}

/// Names and values of labels, as they are written.
pub type Pairs = Vec<(&'static str, &'static str)>;

impl<A: Label> Labels for A {
    fn all() -> Vec<Self> {
        A::ALL.to_vec()
    }

    fn pairs(self) -> Pairs {
        vec![(A::NAME, self.value())]
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    fn all() -> Vec<Self> {
        let pairs = A::ALL.iter().map(|a| B::ALL.iter().map(|b| (*a, *b)));
        pairs.flatten().collect()
    }

    fn pairs(self) -> Pairs {
        vec![(A::NAME, self.0.value()), (B::NAME, self.1.value())]
    }
}

/// A counter for each of the labels `L`. Clones count into the same.
#[derive(Clone, Debug)]
pub struct CounterBy<L> {
    family: Family<Pairs, Counter<u64, AtomicU64>>,
    labels: std::marker::PhantomData<fn(L)>,
}

impl<L: Labels> Default for CounterBy<L> {
    fn default() -> Self {
        let family = Family::default();
        for labels in L::all() {
            drop(family.get_or_create(&labels.pairs()));
        }
        Self {
            family,
            labels: std::marker::PhantomData,
        }
    }
}

impl<L: Labels> CounterBy<L> {
    /// Counts one.
    pub fn count(&self, labels: L) {
        self.add(labels, 1);
    }

    /// Counts many.
    pub fn add(&self, labels: L, many: u64) {
        self.family.get_or_create(&labels.pairs()).inc_by(many);
    }

    /// Registers it; readers see `name` with `_total` behind it.
    pub fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.family.clone());
    }

    /// What was counted so far.
    #[cfg(test)]
    pub fn get(&self, labels: L) -> u64 {
        self.family.get_or_create(&labels.pairs()).get()
    }
}

/// A sum of time for each of the labels `L`. Clones add to the same.
#[derive(Clone, Debug)]
pub struct TimeBy<L> {
    family: Family<Pairs, Counter<f64, AtomicU64>>,
    labels: std::marker::PhantomData<fn(L)>,
}

impl<L: Labels> Default for TimeBy<L> {
    fn default() -> Self {
        let family = Family::default();
        for labels in L::all() {
            drop(family.get_or_create(&labels.pairs()));
        }
        Self {
            family,
            labels: std::marker::PhantomData,
        }
    }
}

impl<L: Labels> TimeBy<L> {
    /// Adds that much.
    pub fn add(&self, labels: L, time: std::time::Duration) {
        let seconds = self.family.get_or_create(&labels.pairs());
        seconds.inc_by(time.as_secs_f64());
    }

    /// Registers it; `name` ends in `_seconds`, and readers see `_total` behind
    /// it.
    pub fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.family.clone());
    }
}

/// A histogram of seconds, from a millisecond to a minute, for each of the
/// labels `L`. Clones count into the same.
#[derive(Clone, Debug)]
pub struct SecondsBy<L> {
    family: Family<Pairs, Histogram, fn() -> Histogram>,
    labels: std::marker::PhantomData<fn(L)>,
}

impl<L: Labels> Default for SecondsBy<L> {
    fn default() -> Self {
        let family: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 4.0, 9)));
        for labels in L::all() {
            drop(family.get_or_create(&labels.pairs()));
        }
        Self {
            family,
            labels: std::marker::PhantomData,
        }
    }
}

impl<L: Labels> SecondsBy<L> {
    /// Takes in how long something took.
    pub fn observe(&self, labels: L, took: std::time::Duration) {
        self.family
            .get_or_create(&labels.pairs())
            .observe(took.as_secs_f64());
    }

    /// Registers it; `name` ends in `_seconds`.
    pub fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.family.clone());
    }
}

/// Declares a label: an enum, and how each of its values is written.
macro_rules! label {
    ($(#[$doc:meta])* $type:ident as $name:literal { $($(#[$value_doc:meta])* $value:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$value_doc])* $value),+
        }

        impl $crate::telemetry::metrics::Label for $type {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn value(self) -> &'static str {
                match self {
                    $(Self::$value => $text),+
                }
            }
        }
    };
}
pub(crate) use label;

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    label! {
        /// A colour.
        Colour as "colour" {
            /// Red.
            Red = "red",
            /// Blue.
            Blue = "blue",
        }
    }

    #[test]
    fn every_series_is_there_before_its_first_event() {
        let mut registry = Registry::default();
        let counter = CounterBy::<(Colour, Colour)>::default();
        counter.register(&mut registry, "layerd_pairs", "Pairs");
        SecondsBy::<Colour>::default().register(&mut registry, "layerd_mix_seconds", "Mixing");
        counter.count((Colour::Red, Colour::Blue));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert_eq!(text.matches("layerd_pairs_total{").count(), 4, "{text}");
        assert_eq!(counter.get((Colour::Red, Colour::Blue)), 1);
        assert!(text.contains("layerd_mix_seconds_count{colour=\"red\"} 0"));
    }
}
