//! Names that look like others.
//!
//! Two refs that look the same to people are two: what is written to the one is
//! not what somebody reads who means the other. So nothing new is written under
//! a name that can be taken for another one. What is there already under such a
//! name stays readable, and can be flushed.
//!
//! Branches may be called anything in any language. A name is refused where
//! Unicode's rules for that say so (UTS 39):
//!
//! - a word mixes alphabets: it is not *highly restrictive* (5.2), that is of one
//!   script, or of Latin with those of Chinese, Japanese or Korean;
//! - a word is made of letters that pass for ASCII (their *skeletons*, 4), and no
//!   other word of the name shows its alphabet;
//! - something in it is not seen;
//! - it is not composed (UAX 15, form C), as the same text mostly is.
//!
//! Projects are repositories, whose names are ASCII at GitHub and at GitLab: so
//! they are here.

use unicode_script::Script;
use unicode_security::GeneralSecurityProfile as _;
use unicode_security::confusable_detection::skeleton;
use unicode_security::mixed_script::AugmentedScriptSet;

use super::InvalidName;

/// Refuses what can be taken for another name.
pub fn check(text: &str) -> Result<(), InvalidName> {
    if text.is_ascii() {
        return Ok(());
    }
    if let Some(unseen) = text.chars().find(|letter| is_blank(*letter)) {
        return Err(InvalidName::Unseen(unseen));
    }
    if !unicode_normalization::is_nfc(text) {
        return Err(InvalidName::Composed);
    }
    let words = || text.split(|letter: char| letter.is_ascii() && !letter.is_ascii_alphanumeric());
    for word in words().filter(|word| !word.is_ascii()) {
        if let Some(letter) = stranger(word) {
            return Err(InvalidName::Mixed(letter));
        }
        if let Some(letter) = passing(word) {
            let alphabet = AugmentedScriptSet::for_str(word);
            let shows = |other: &str| {
                let mut both = AugmentedScriptSet::for_str(other);
                both.intersect_with(alphabet);
                !other.is_ascii() && passing(other).is_none() && !both.is_empty()
            };
            if alphabet.is_all() || !words().any(shows) {
                return Err(InvalidName::Passing(letter));
            }
        }
    }
    Ok(())
}

/// Refuses all but ASCII.
pub fn check_ascii(text: &str) -> Result<(), InvalidName> {
    match text.chars().find(|letter| !letter.is_ascii()) {
        Some(letter) => Err(InvalidName::Foreign(letter)),
        None => Ok(()),
    }
}

/// Whether nothing is left of it where looks count.
fn is_blank(letter: char) -> bool {
    skeleton(letter.encode_utf8(&mut [0; 4])).next().is_none()
}

/// A letter of a word that is of another alphabet than the others.
fn stranger(word: &str) -> Option<char> {
    let mut all = AugmentedScriptSet::default();
    let mut beside_latin = AugmentedScriptSet::default();
    let odd = word.chars().find(|letter| {
        let own = AugmentedScriptSet::for_char(*letter);
        all.intersect_with(own);
        if !own.base.contains_script(Script::Latin) {
            beside_latin.intersect_with(own);
        }
        let goes_with_latin = beside_latin.hanb || beside_latin.jpan || beside_latin.kore;
        all.is_empty() && !goes_with_latin
    })?;
    // What is told is the one that nobody sees.
    let mut letters = word.chars();
    Some(match odd.is_ascii() {
        true => letters.find(|letter| !letter.is_ascii()).unwrap_or(odd),
        false => odd,
    })
}

/// A letter of a word that looks like ASCII, where all that are not ASCII do.
fn passing(word: &str) -> Option<char> {
    let mut foreign = word.chars().filter(|letter| !letter.is_ascii());
    let first = foreign.next()?;
    (looks_ascii(first) && foreign.all(looks_ascii)).then_some(first)
}

/// Whether a letter looks like one of ASCII. A Latin one that languages are
/// written with is itself: Turkish has a dotless i.
fn looks_ascii(letter: char) -> bool {
    let own = AugmentedScriptSet::for_char(letter);
    let is_written = letter.identifier_allowed() && !own.is_all();
    if is_written && own.base.contains_script(Script::Latin) {
        return false;
    }
    let looks = |letter: char| skeleton(letter.encode_utf8(&mut [0; 4])).collect::<String>();
    let look = looks(letter);
    ('!'..='~').any(|ascii| looks(ascii) == look)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_can_be_taken_for_another_is_refused() {
        for (text, why) in [
            ("refs/heads/m\u{430}in", InvalidName::Mixed('\u{430}')),
            ("refs/heads/\u{430}bc", InvalidName::Mixed('\u{430}')),
            ("release-\u{3bf}ne", InvalidName::Mixed('\u{3bf}')),
            ("ветка2main", InvalidName::Mixed('в')),
            (
                "\u{441}\u{43e}\u{441}\u{43e}",
                InvalidName::Passing('\u{441}'),
            ),
            ("fix/\u{43e}", InvalidName::Passing('\u{43e}')),
            (
                "größe/\u{441}\u{43e}\u{441}\u{43e}",
                InvalidName::Passing('\u{441}'),
            ),
            ("\u{ff4d}\u{ff41}in", InvalidName::Passing('\u{ff4d}')),
            ("\u{1d426}ain", InvalidName::Passing('\u{1d426}')),
            ("a\u{2215}b", InvalidName::Passing('\u{2215}')),
            ("a\u{2010}b", InvalidName::Passing('\u{2010}')),
            ("ветка/a\u{2215}b", InvalidName::Passing('\u{2215}')),
            ("gro\u{308}\u{df}e", InvalidName::Composed),
            ("ma\u{200b}in", InvalidName::Unseen('\u{200b}')),
            ("ma\u{fe0f}in", InvalidName::Unseen('\u{fe0f}')),
            ("ma\u{34f}in", InvalidName::Unseen('\u{34f}')),
            ("\u{3164}", InvalidName::Unseen('\u{3164}')),
            ("ma\u{202e}in", InvalidName::Unseen('\u{202e}')),
        ] {
            assert_eq!(check(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_name_in_any_language_is_none_of_them() {
        for text in [
            "refs/heads/main",
            "größe",
            "cœur/été",
            "yeni-sayı",
            "ветка",
            "работа-с-кэшем",
            "функция/оса",
            "分支",
            "分支main",
            "メインの枝",
            "가지-2",
            "κλάδος",
            "ענף",
            "فرع",
            "शाखा",
            "\u{1f980}",
            "fix-\u{1f980}-main",
            "refs/pull/7/merge",
            "feature/*/größe-**",
        ] {
            assert_eq!(check(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn a_project_is_ascii() {
        assert_eq!(check_ascii("acme/shop.x_y-2"), Ok(()));
        assert_eq!(check_ascii("größe"), Err(InvalidName::Foreign('ö')));
    }

    proptest! {
        /// Each letter of one alphabet that looks like one of another.
        #[test]
        fn no_letter_of_a_word_can_be_swapped_unseen(
            word in "[a-z]{2,8}", at in any::<prop::sample::Index>(),
            letter in prop::sample::select(vec![
                '\u{430}', '\u{435}', '\u{43e}', '\u{440}', '\u{441}', '\u{443}', '\u{445}',
                '\u{456}', '\u{458}', '\u{3bf}', '\u{3bd}', '\u{ff41}', '\u{1d41a}', '\u{585}',
            ]),
        ) {
            let mut letters: Vec<char> = word.chars().collect();
            let at = at.index(letters.len());
            letters[at] = letter;
            let swapped: String = letters.into_iter().collect();
            prop_assert!(check(&swapped).is_err(), "{swapped:?}");
        }

        #[test]
        fn whatever_is_written_is_a_name_or_is_not(text in any::<String>()) {
            prop_assert!(check(&text).is_ok() || !text.is_ascii());
        }
    }
}
