//! A text that some patterns match and others don't.
//!
//! Whether one pattern takes all that another does, or two take anything in
//! common, are questions for such a text. Patterns are walked through all at
//! once, each as the set of places that it can be at, over all letters that any
//! of them names and one that none does. So the answer is exact, as long as the
//! effort lasts: sets of places can be many.

use std::collections::{BTreeSet, VecDeque};

use super::{Glob, Part, parts};

/// How much may be looked at, over several searches.
#[derive(Debug)]
pub struct Effort(usize);

impl Effort {
    /// So many steps.
    pub fn of(steps: usize) -> Self {
        Self(steps)
    }

    /// Whether there is one step more, which is taken.
    pub fn step(&mut self) -> bool {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or_default();
        left.is_some()
    }
}

/// What a search comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// This.
    One(T),
    /// There is none.
    None,
    /// Nobody looked to the end.
    Unknown,
}

impl<T> Found<T> {
    /// Whether it is certain that there is none.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether there certainly is one.
    pub fn is_some(&self) -> bool {
        matches!(self, Self::One(_))
    }

    /// The first that any of these finds.
    pub fn first_of(each: impl IntoIterator<Item = Self>) -> Self {
        let mut unless = Self::None;
        for found in each {
            match found {
                Self::One(_) => return found,
                Self::Unknown => unless = Self::Unknown,
                Self::None => {}
            }
        }
        unless
    }
}

/// A text that all of `inside` match and none of `outside`.
pub fn find(inside: &[&Glob], outside: &[&Glob], effort: &mut Effort) -> Found<String> {
    // What most patterns are, and what costs nothing.
    if let Some(exact) = inside.iter().find(|glob| glob.is_exact()) {
        let text = exact.as_str();
        let fits = inside.iter().all(|glob| glob.matches(text))
            && !outside.iter().any(|glob| glob.matches(text));
        return match fits {
            true => Found::One(text.to_owned()),
            false => Found::None,
        };
    }
    let apart = |one: &&Glob, two: &&Glob| {
        !one.prefix().starts_with(two.prefix()) && !two.prefix().starts_with(one.prefix())
    };
    if inside
        .iter()
        .any(|one| inside.iter().any(|two| apart(one, two)))
    {
        return Found::None;
    }
    let near = outside
        .iter()
        .filter(|glob| !inside.iter().any(|one| apart(one, glob)));
    let walks: Vec<Walk> = inside
        .iter()
        .chain(near)
        .map(|glob| Walk::of(glob))
        .collect();
    walk(&walks, inside.len(), effort)
}

/// The first text in the order of lengths.
fn walk(walks: &[Walk], inside: usize, effort: &mut Effort) -> Found<String> {
    let letters = letters(walks);
    let start: Vec<Places> = walks.iter().map(Walk::start).collect();
    let mut seen = BTreeSet::from([start.clone()]);
    let mut next = VecDeque::from([(start, String::new())]);
    while let Some((places, text)) = next.pop_front() {
        let ended = |at: usize| walks[at].is_end(&places[at]);
        if (0..walks.len()).all(|at| ended(at) == (at < inside)) {
            return Found::One(text);
        }
        for letter in &letters {
            if !effort.step() {
                return Found::Unknown;
            }
            let went = walks.iter().zip(&places);
            let went: Vec<Places> = went.map(|(walk, from)| walk.go(from, *letter)).collect();
            let lost = went[..inside].iter().any(BTreeSet::is_empty);
            if !lost && seen.insert(went.clone()) {
                next.push_back((went, format!("{text}{letter}")));
            }
        }
    }
    Found::None
}

/// Places between the steps of a pattern.
type Places = BTreeSet<usize>;

/// A pattern, letter by letter.
struct Walk(Vec<Step>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Letter(char),
    Segment,
    Any,
}

impl Walk {
    fn of(glob: &Glob) -> Self {
        let mut steps = Vec::new();
        for part in parts(glob.as_str()) {
            match part {
                // Cut at stars, it is still text.
                Part::Literal(bytes) => {
                    let text = String::from_utf8_lossy(bytes);
                    steps.extend(text.chars().map(Step::Letter));
                }
                Part::Segment => steps.push(Step::Segment),
                Part::Any => steps.push(Step::Any),
            }
        }
        Self(steps)
    }

    fn start(&self) -> Places {
        self.settled(BTreeSet::from([0]))
    }

    fn is_end(&self, places: &Places) -> bool {
        places.contains(&self.0.len())
    }

    fn go(&self, from: &Places, letter: char) -> Places {
        let went = from.iter().filter_map(|at| match self.0.get(*at)? {
            Step::Letter(own) => (*own == letter).then_some(at + 1),
            Step::Segment => (letter != '/').then_some(*at),
            Step::Any => Some(*at),
        });
        self.settled(went.collect())
    }

    /// With the places that are reached without a letter.
    fn settled(&self, mut places: Places) -> Places {
        let mut open: Vec<usize> = places.iter().copied().collect();
        while let Some(at) = open.pop() {
            let passes = matches!(self.0.get(at), Some(Step::Segment | Step::Any));
            if passes && places.insert(at + 1) {
                open.push(at + 1);
            }
        }
        places
    }
}

/// All that are named, the slash, and one that is not named.
fn letters(walks: &[Walk]) -> BTreeSet<char> {
    let mut letters = BTreeSet::from(['/']);
    for Walk(steps) in walks {
        letters.extend(steps.iter().filter_map(|step| match step {
            Step::Letter(letter) => Some(*letter),
            Step::Segment | Step::Any => None,
        }));
    }
    let other = ('a'..='z')
        .chain('\u{100}'..)
        .find(|other| !letters.contains(other));
    letters.extend(other);
    letters
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EFFORT: usize = 100_000;

    fn globs(texts: &[&str]) -> Vec<Glob> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn found(inside: &[&str], outside: &[&str]) -> Found<String> {
        let (inside, outside) = (globs(inside), globs(outside));
        let [inside, outside]: [Vec<&Glob>; 2] =
            [&inside, &outside].map(|globs| globs.iter().collect());
        find(&inside, &outside, &mut Effort::of(EFFORT))
    }

    #[test]
    fn what_a_pattern_takes_and_others_leave_is_found() {
        for (inside, outside) in [
            (&["a*"][..], &["**"][..]),
            (&["refs/heads/*"], &["refs/**"]),
            (&["acme/*"], &["acme/*", "x"]),
            (&["acme/shop"], &["acme/*"]),
            (&["a*b*"], &["a*"]),
            (&["*"], &["", "*a*", "*b*"]),
        ] {
            let found = found(inside, outside);
            match (inside, outside) {
                (["*"], _) => assert_eq!(found, Found::One("c".to_owned())),
                _ => assert!(found.is_none(), "{inside:?} {outside:?} {found:?}"),
            }
        }
        assert_eq!(
            found(&["acme/**"], &["acme/*"]),
            Found::One("acme//".to_owned())
        );
        assert_eq!(found(&["a*", "*b"], &[]), Found::One("ab".to_owned()));
        assert!(found(&["a*", "b*"], &[]).is_none());
        assert!(found(&["a/*", "*"], &[]).is_none());
        // Together they leave nothing, and neither alone.
        assert!(found(&["x/**"], &["x/*", "x/*/**"]).is_none());
        assert!(found(&["x/**"], &["x/*/**"]).is_some());
    }

    #[test]
    fn what_would_take_too_long_is_not_known() {
        let wide = ["**a".repeat(16), "**b".repeat(16)];
        let [one, two] = [&wide[0], &wide[1]].map(|text| text.parse::<Glob>().unwrap());
        let found = find(&[&one, &two], &[], &mut Effort::of(100));
        assert_eq!(found, Found::Unknown);
        assert!(!found.is_some() && !found.is_none());
    }

    proptest! {
        /// Every text that is as long as any that could matter.
        #[test]
        fn a_search_says_what_trying_all_texts_says(
            inside in prop::collection::vec("[ab/*]{0,4}", 1..3),
            outside in prop::collection::vec("[ab/*]{0,4}", 0..3),
        ) {
            let parsed = |texts: &[String]| -> Option<Vec<Glob>> {
                texts.iter().map(|text| text.parse().ok()).collect()
            };
            let (Some(inside), Some(outside)) = (parsed(&inside), parsed(&outside)) else {
                return Ok(());
            };
            let fits = |text: &str| {
                inside.iter().all(|glob| glob.matches(text))
                    && !outside.iter().any(|glob| glob.matches(text))
            };
            let [ins, outs]: [Vec<&Glob>; 2] =
                [&inside, &outside].map(|globs| globs.iter().collect());
            match find(&ins, &outs, &mut Effort::of(EFFORT)) {
                Found::One(text) => prop_assert!(fits(&text), "{text:?}"),
                Found::Unknown => prop_assert!(false, "too little effort"),
                Found::None => {
                    let mut texts = vec![String::new()];
                    for _ in 0..5 {
                        for text in &texts {
                            prop_assert!(!fits(text), "{text:?}");
                        }
                        texts = texts
                            .iter()
                            .flat_map(|text| ["a", "b", "c", "/"].map(|next| format!("{text}{next}")))
                            .collect();
                    }
                }
            }
        }
    }
}
