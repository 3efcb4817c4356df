//! What is wrong with a file is said before it counts.

use super::{TABLES, config};
use crate::access::identity::Config;

const ISSUER: &str = r#"
[[issuer]]
name = "ci"
url = "https://ci.example.com"
audience = "cache"
"#;

fn wrong(toml: &str) -> String {
    Config::parse(toml)
        .err()
        .unwrap_or_else(|| panic!("fine: {toml}"))
}

fn with_rule(rule: &str) -> String {
    format!("{ISSUER}[[rule]]\nname = \"r\"\nissuer = \"ci\"\n{rule}")
}

#[test]
fn a_file_with_options_alone_says_nothing_of_identities() {
    assert!(config("listen = 'x'").is_empty());
    let config = config(TABLES);
    assert_eq!((config.issuers.len(), config.rules.len()), (2, 7));
    // Both let in by name, and each is told so once.
    let [github, gitlab] = &config.warnings[..] else {
        panic!("{:?}", config.warnings)
    };
    assert!(
        github.starts_with("rule \"github\" lets in by name"),
        "{github}"
    );
    assert!(
        gitlab.starts_with("rule \"gitlab\" lets in by name"),
        "{gitlab}"
    );
    let by_id =
        "preset = 'github'\nowners = ['acme']\nowner-ids = ['7']\ndefault-branch = 'main'\n";
    let config = self::config(&with_rule(by_id));
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn a_mistake_is_told_with_the_table_that_it_is_in() {
    for (toml, told) in [
        (with_rule("projct = 'x'"), "unknown field `projct`"),
        (with_rule("match = { sub = 'a' }"), "project is missing"),
        (
            with_rule("match = { sub = 'a' }\nproject = '{a}{b}'"),
            "project: a / has to stand",
        ),
        (
            with_rule("match = { sub = 'a' }\nproject = 'p'"),
            "grants nothing",
        ),
        (
            with_rule("match = { sub = 'a' }\nproject = 'p'\nread = ['a b']"),
            "is no ref",
        ),
        (
            with_rule("match = { sub = 'a' }\nproject = 'p'\nwrite = ['m\u{430}in']"),
            "U+0430 is of another alphabet",
        ),
        (with_rule("project = 'p'\nread = ['main']"), "too wide"),
        (
            with_rule("match = { sub = '*' }\nproject = 'p'\nread = ['main']"),
            "too wide",
        ),
        (
            with_rule("match = { sub = 7 }\nproject = 'p'"),
            "a text or a list of texts",
        ),
        (
            with_rule("match = { sub = [] }\nproject = 'p'\nread = ['main']"),
            "lets nobody in",
        ),
        (
            with_rule("owners = ['a']\nproject = 'p'"),
            "goes with preset",
        ),
        (
            with_rule("preset = 'github'\nowners = ['a']"),
            "default-branch is missing",
        ),
        (
            with_rule("preset = 'github'\ndefault-branch = 'main'"),
            "owners or repositories",
        ),
        (
            with_rule("preset = 'github'\ndefault-branch = 'main'\nowner-ids = ['7']"),
            "owners or repositories",
        ),
        (
            with_rule("preset = 'github'\ndefault-branch = '*'\nowners = ['a']"),
            "one branch",
        ),
        (
            with_rule("preset = 'github'\ndefault-branch = 'm'\nowners = ['a']\nread = ['x']"),
            "says read itself",
        ),
        (with_rule("preset = 'gitea'"), "unknown variant"),
        (
            with_rule("match = { sub = 'a' }\nproject = 'p'\nlifetime = '30d'"),
            "too long",
        ),
        (
            with_rule("match = { sub = 'a' }\nproject = 'p'\nlifetime = '0'"),
            "1 s at least",
        ),
        (
            with_rule("match = { iss = 'https://ci.example.com' }\nproject = 'p'\nread = ['main']"),
            "too wide",
        ),
        (ISSUER.to_owned(), "no rule is about it"),
        (ISSUER.replace("https", "http"), "https:// is expected"),
        (
            ISSUER.replace("https://", "https://u:secret@"),
            "no place in a URL",
        ),
        (ISSUER.replace("audience = \"cache\"", ""), "audience"),
        (ISSUER.replace("\"cache\"", "[]"), "audience"),
        (format!("{ISSUER}{ISSUER}"), "there twice"),
        (format!("{ISSUER}algorithms = ['HS256']"), "HS256"),
        (format!("{ISSUER}algorithms = ['none']"), "none"),
        (format!("{ISSUER}skew = '1h'"), "too long"),
        (
            format!("{ISSUER}jwks-file = 'x'\njwks-url = 'https://x'"),
            "not both",
        ),
        (
            "[[rule]]\nname = 'r'\nissuer = 'x'\nproject = 'p'".to_owned(),
            "no issuer",
        ),
        ("issuer = 7".to_owned(), "invalid type"),
    ] {
        let error = wrong(&toml);
        assert!(error.contains(told), "{toml}\n{told}: {error}");
        assert!(!error.contains("u:secret"), "{error}");
    }
}

#[test]
fn who_vouches_for_the_world_is_asked_whose_a_job_is() {
    for (claim, fine) in [
        ("repository_owner = 'acme'", true),
        ("repository = 'acme/*'", true),
        ("sub = 'repo:acme/shop:*'", true),
        ("repository_owner = 'acme*'", false),
        ("repository = 'ac*'", false),
        ("sub = 'repo:*'", false),
        ("sub = 'repo:acme*'", false),
        ("event_name = 'push'", false),
        ("repository_owner = ['acme', '**']", false),
    ] {
        let toml = with_rule(&format!(
            "match = {{ {claim} }}\nproject = 'p'\nread = ['main']"
        ));
        let toml = toml.replace(
            "https://ci.example.com",
            "https://token.actions.githubusercontent.com/acme",
        );
        let parsed = Config::parse(&toml);
        assert_eq!(parsed.is_ok(), fine, "{claim}: {parsed:?}");
    }
}

fn two(first: &str, second: &str) -> String {
    let rule = |name: &str, matching: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\nissuer = \"ci\"\nmatch = {{ {matching} }}\n\
             project = 'p'\nread = ['main']\n"
        )
    };
    format!("{ISSUER}{}{}", rule("one", first), rule("two", second))
}

#[test]
fn a_rule_that_can_never_match_and_rules_that_overlap_are_reported() {
    for (first, second) in [
        ("sub = 'a*'", "sub = 'ab'"),
        ("sub = 'a*'", "sub = ['ab', 'ac'], x = 'y'"),
        ("sub = 'a/**'", "sub = 'a/b/*'"),
    ] {
        let error = wrong(&two(first, second));
        assert!(error.contains("\"two\" can never match"), "{error}");
        // The other way round is how a special case is written.
        assert!(config(&two(second, first)).warnings.is_empty());
    }
    let warnings = config(&two("sub = 'a', x = 'p*'", "sub = 'a', y = 'q*'")).warnings;
    assert!(
        warnings[0].contains("can match the same token"),
        "{warnings:?}"
    );
    assert!(config(&two("sub = 'a'", "sub = 'b'")).warnings.is_empty());
    let wide = with_rule("match = { sub = 'a' }\nproject = 'p'\nwrite = ['**']");
    assert!(config(&wide).warnings[0].contains("wide"));
}
