//! What is said of tables: each class of it.

mod properties;

use super::super::Config;

const GITHUB: &str = "https://token.actions.githubusercontent.com";
const GITLAB: &str = "https://gitlab.com";
const OTHER: &str = "https://ci.example.com";

fn table(name: &str, body: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\nissuer = \"ci\"\n{body}\n")
}

fn parsed(url: &str, rules: &str) -> Result<Config, String> {
    let issuer =
        format!("[[issuer]]\nname = \"ci\"\nurl = \"{url}\"\naudience = [\"cache\", \"hub\"]\n");
    Config::parse(&(issuer + rules))
}

/// What is warned of in a table of these rules.
fn warned(url: &str, rules: &str) -> Vec<String> {
    let config = parsed(url, rules).unwrap_or_else(|why| panic!("{rules}\n{why}"));
    let by_name = |warning: &String| !warning.contains("lets in by name");
    config.warnings.into_iter().filter(by_name).collect()
}

fn own(matching: &str, rest: &str) -> String {
    table("r", &format!("match = {{ {matching} }}\n{rest}"))
}

fn preset(name: &str, kind: &str, who: &str) -> String {
    table(
        name,
        &format!("preset = \"{kind}\"\n{who}\ndefault-branch = \"main\""),
    )
}

#[test]
fn a_rule_that_is_never_first_is_a_mistake() {
    let reader = "project = 'p'\nread = ['main']";
    let one =
        |name: &str, matching: &str| table(name, &format!("match = {{ {matching} }}\n{reader}"));
    for (rules, told) in [
        (
            one("a", "sub = 'x*'") + &one("b", "sub = 'xy'"),
            "gets what rule \"a\", which comes first",
        ),
        // None of those before it alone.
        (
            one("a", "sub = 'x/*'") + &one("c", "sub = 'x/*/**'") + &one("b", "sub = 'x/**'"),
            "gets what rules \"a\" and \"c\", which come first",
        ),
        (
            one("a", "sub = 's', x = '1'")
                + &one("c", "x = '2'")
                + &one("b", "sub = 's', x = ['1', '2']"),
            "gets what rules \"a\" and \"c\"",
        ),
        (
            one("b", "sub = 's', iss = 'https://elsewhere.example.com'"),
            "match asks for another",
        ),
        // What always holds hides nothing less.
        (
            one("a", "sub = 's', iss = '**'") + &one("b", "sub = 's'"),
            "gets what rule \"a\"",
        ),
        (
            one("a", "sub = 's', aud = ['cache', 'hub']") + &one("b", "sub = 's'"),
            "gets what rule \"a\"",
        ),
    ] {
        let error = parsed(OTHER, &rules)
            .err()
            .unwrap_or_else(|| panic!("fine: {rules}"));
        assert!(
            error.starts_with("rule \"b\" can never match: "),
            "{rules}\n{error}"
        );
        assert!(
            error.contains(told) && error.lines().count() == 1,
            "{rules}\n{error}"
        );
    }
    for rules in [
        one("a", "sub = 's', iss = 'https://ci.*'"),
        one("a", "sub = 's', aud = 'cache'") + &one("b", "sub = 's'"),
        one("a", "sub = 's', x = '**'") + &one("b", "sub = 's'"),
        one("a", "sub = 's', x = '*'") + &one("b", "sub = 's', x = '**'"),
    ] {
        assert!(parsed(OTHER, &rules).is_ok(), "{rules}");
    }
}

#[test]
fn a_preset_that_is_hidden_is_a_mistake_and_a_part_of_one_a_warning() {
    let wide = preset("a", "github", "owners = ['acme']");
    for (first, second) in [
        (&wide, preset("b", "github", "owners = ['acme']")),
        (
            &wide,
            preset("b", "github", "repositories = ['acme/shop', 'acme/x*']"),
        ),
        (
            &preset("a", "github", "repositories = ['acme/**']"),
            preset("b", "github", "owners = ['acme']"),
        ),
        (
            &own(
                "repository_owner = 'acme'",
                "project = 'p'\nread = ['main']",
            )
            .replace("\"r\"", "\"a\""),
            preset("b", "github", "repositories = ['acme/shop']"),
        ),
    ] {
        let error = parsed(GITHUB, &(first.clone() + &second)).err();
        let error = error.unwrap_or_else(|| panic!("fine: {first}{second}"));
        assert!(
            error.contains("rule \"b\" can never match: all that it is about gets what rule \"a\""),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
        // The other way round, it is the special case that comes first.
        if *first == wide && second.contains("repositories") {
            assert_eq!(warned(GITHUB, &(second + first)), [""; 0]);
        }
    }
    let gitlab = preset("a", "gitlab", "owners = ['acme']")
        + &preset("b", "gitlab", "repositories = ['acme/shop']");
    let error = parsed(GITLAB, &gitlab).unwrap_err();
    assert!(error.contains("rule \"b\" can never match"), "{error}");
    // One rule for what a preset also has a part for.
    let special = own(
        "repository_owner = 'acme', event_name = 'pull_request'",
        "project = '{repository}'\nread = ['main']",
    );
    let warnings = warned(GITHUB, &(special + &wide));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("\"a/pull-request\", which is a part of a preset, can never match"),
        "{warnings:?}"
    );
    assert!(warnings[0].contains("rule \"r\""), "{warnings:?}");
}

#[test]
fn an_audience_that_is_not_taken_is_warned_of() {
    let warnings = warned(
        OTHER,
        &own(
            "sub = 's', aud = 'elsewhere'",
            "project = 'p'\nread = ['main']",
        ),
    );
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("can hardly match: it asks for aud \"elsewhere\""),
        "{warnings:?}"
    );
    assert!(
        warnings[0].contains("\"cache\" or \"hub\" alone"),
        "{warnings:?}"
    );
    assert!(
        warned(
            OTHER,
            &own("sub = 's', aud = 'hub'", "project = 'p'\nread = ['main']")
        )
        .is_empty()
    );
}

#[test]
fn what_strangers_could_write_is_warned_of() {
    let fine_event = "event_name = ['push', 'schedule']";
    for (url, matching, rest, told) in [
        (
            GITHUB,
            "repository = 'acme/shop'",
            "write = ['{ref}']",
            &[
                "event_name \"pull_request_target\", \"pull_request\" and others",
                "say event_name = [\"push\"",
                "preset = \"github\"",
            ][..],
        ),
        (
            GITHUB,
            "repository = 'acme/shop', event_name = 'pull_request*'",
            "write = ['main']",
            &[
                "\"pull_request_target\"",
                "write refs/heads/main",
                "a job of any branch writes refs/heads/main",
            ],
        ),
        (
            GITHUB,
            "repository = 'acme/shop', event_name = '*'",
            "write = ['refs/heads/{base_ref}']",
            &["strangers can cause"],
        ),
        (
            GITHUB,
            "sub = 'repo:acme/shop:ref:refs/heads/main'",
            "write = ['main']",
            &["strangers can cause"],
        ),
        (
            GITHUB,
            "repository = 'acme/shop', event_name = 'push'",
            "write = ['main']",
            &[
                "a job of any branch writes refs/heads/main",
                "say ref = \"refs/heads/main\" in match, or write = [\"{ref}\"]",
            ],
        ),
        (
            GITHUB,
            "repository = 'acme/shop', event_name = 'push', ref = 'refs/heads/**'",
            "write = ['main']",
            &["a job of any branch"],
        ),
        (
            GITHUB,
            "repository = 'acme/shop', event_name = 'push', ref = 'refs/heads/main'",
            "read = ['**']\nwrite = ['main']",
            &["it reads refs/** and writes refs/heads/main"],
        ),
        (
            GITHUB,
            "repository = 'acme/shop', event_name = 'push'",
            "write = ['**']",
            &["its bearers write refs/**", "such as {ref}"],
        ),
        (
            GITHUB,
            "repository = 'acme/shop', event_name = 'push'",
            "write = ['*']",
            &["its bearers write refs/heads/*"],
        ),
        (
            OTHER,
            "sub = 'a'",
            "write = ['**']",
            &["its bearers write refs/**", "such as refs/heads/main"],
        ),
        (
            OTHER,
            "repository = 'acme/shop'",
            "write = ['main']",
            &["strangers can cause"],
        ),
        (
            OTHER,
            "sub = 'system:serviceaccount:ci-*:builder'",
            "write = ['main']",
            &[
                "all whom it lets in write refs/heads/main of one project, p",
                "put a claim in braces into project",
            ],
        ),
        (
            GITHUB,
            "repository_owner = 'acme', event_name = 'push'",
            "write = ['{ref}']",
            &[
                "all whom it lets in write {ref} of one project, p",
                "put {repository} into project",
            ],
        ),
        (
            GITLAB,
            "project_path = 'acme/shop'",
            "write = ['{ref_path}']",
            &[
                "pipeline_source \"merge_request_event\"",
                "preset = \"gitlab\"",
            ],
        ),
    ] {
        let warnings = warned(url, &own(matching, &format!("project = 'p'\n{rest}")));
        let text = warnings.join("\n");
        assert!(
            warnings
                .iter()
                .all(|warning| warning.starts_with("rule \"r\" is too wide: ")),
            "{text}"
        );
        for told in told {
            assert!(text.contains(told), "{matching} {rest}\n{told}\n{text}");
        }
    }
    for (url, matching, rest) in [
        (
            GITHUB,
            fine_event,
            "project = '{repository}'\nread = ['{ref}', 'main']\nwrite = ['{ref}']",
        ),
        (
            GITHUB,
            "event_name = 'push', ref = 'refs/heads/main'",
            "project = '{repository}'\nwrite = ['main']",
        ),
        (
            GITHUB,
            "event_name = 'push', environment = 'release'",
            "project = '{repository}'\nwrite = ['main']",
        ),
        (
            GITHUB,
            "event_name = 'pull_request', ref = 'refs/pull/*/merge'",
            "project = '{repository}'\nwrite = ['{ref}']",
        ),
        (
            GITHUB,
            "event_name = 'issues'",
            "project = '{repository}'\nread = ['**']",
        ),
        (
            GITHUB,
            "event_name = 'push'",
            "project = '{repository}'\nwrite = ['refs/pull/*/merge']",
        ),
    ] {
        let matching = format!("repository = 'acme/*', {matching}");
        assert_eq!(
            warned(url, &own(&matching, rest)),
            [""; 0],
            "{matching} {rest}"
        );
    }
    for (url, matching, rest) in [
        (
            OTHER,
            "sub = 'system:serviceaccount:ci-*:builder'",
            "project = 'acme/{kubernetes.io/namespace}'\nread = ['refs/heads/**']\nwrite = ['main']",
        ),
        (
            OTHER,
            "sub = 'builder'",
            "project = 'p'\nread = ['**']\nwrite = ['main']",
        ),
        (
            GITLAB,
            "project_path = 'acme/shop', pipeline_source = 'push', ref_protected = 'true'",
            "project = 'p'\nwrite = ['main']",
        ),
    ] {
        assert_eq!(
            warned(url, &own(matching, rest)),
            [""; 0],
            "{matching} {rest}"
        );
    }
}

/// So many as a file may have, none of which hides another.
#[test]
fn the_longest_table_is_looked_through() {
    let rules: String = (0..100)
        .map(|number| {
            let who = format!("repositories = ['acme/*-{number}/**', 'b*d/{number}']");
            preset(&format!("r{number}"), "gitlab", &who)
        })
        .collect();
    let config = parsed(OTHER, &rules).unwrap();
    assert_eq!(config.rules.len(), 400);
}
