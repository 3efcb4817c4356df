//! What a hub says of its tables before it serves.

use super::{arguments, shown, tables, written};
use crate::harness::oidc::{Answers, Issuer};
use crate::harness::{Lab, layerd};

#[tokio::test]
async fn a_hub_says_what_is_wrong_with_its_tables_before_it_serves() {
    let (lab, issuer) = (Lab::new(), Issuer::start().await);
    let data = shown(&lab.path("data"));
    let check = async |tables: &str, more: &[&str]| {
        let arguments = arguments(&lab, tables).await;
        let arguments = arguments.iter().map(String::as_str);
        let serve = [
            "serve",
            "--check-config",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            &data,
        ];
        layerd(
            serve
                .into_iter()
                .chain(arguments)
                .chain(more.iter().copied()),
        )
        .await
    };
    let tables = tables(&issuer, "15m");
    let fine = check(&tables, &[]).await.ok().stdout;
    assert!(
        fine.contains(&format!("issuer ci ({}): ok, 1 key", issuer.url())),
        "{fine}"
    );
    issuer.answer(Answers::Failing);
    let outcome = check(&tables, &[]).await.failed();
    assert!(outcome.stdout.contains("500"), "{}", outcome.stdout);
    for (tables, told) in [
        (
            tables.replace("owners = ['acme']", ""),
            "owners or repositories",
        ),
        (tables.replace("preset", "prset"), "prset"),
        (format!("{tables}[[rul]]\n"), "rul"),
        (tables.replace("['acme']", "['*']"), "too wide"),
    ] {
        let outcome = check(&tables, &[]).await;
        assert_ne!(outcome.code, Some(0), "{tables}");
        assert!(outcome.stderr.contains(told), "{told}: {}", outcome.stderr);
    }
    issuer.answer(Answers::Well);
    let own = |name: &str, matching: &str, grants: &str| {
        format!(
            "{tables}[[rule]]\nname = '{name}'\nissuer = 'ci'\nmatch = {{ {matching} }}\n{grants}\n"
        )
    };
    let reads = "project = 'p'\nread = ['main']";
    let writes = "project = 'p'\nwrite = ['main']";
    for (tables, told) in [
        (
            own("late", "repository_owner = 'acme'", reads),
            "rule \"late\" can never match",
        ),
        (
            own("other", "sub = 'x', iss = 'https://elsewhere'", reads),
            "rule \"other\" can never match",
        ),
    ] {
        let outcome = check(&tables, &[]).await;
        assert_eq!(outcome.code, Some(1), "{tables}");
        assert!(outcome.stderr.contains(told), "{told}: {}", outcome.stderr);
    }
    for (tables, told) in [
        (
            own("wide", "repository = 'other/shop'", writes),
            "warning: rule \"wide\" is too wide: jobs that strangers can cause",
        ),
        (
            own("aud", "repository = 'other/shop', aud = 'x'", reads),
            "warning: rule \"aud\" can hardly match",
        ),
        (
            own("both", "repository = 'other/shop', sub = 'a*'", reads)
                + "[[rule]]\nname = 'two'\nissuer = 'ci'\nmatch = { repository = 'other/*', sub = 'ab' }\nproject = 'p'\nread = ['main']\n",
            "warning: rules \"both\" and \"two\" can match the same token",
        ),
    ] {
        let outcome = check(&tables, &[]).await.ok();
        assert!(outcome.stdout.contains(told), "{told}: {}", outcome.stdout);
    }
    // Who can't sign can't exchange.
    let config = shown(&written(&lab, "hub.toml", &tables));
    let serve = [
        "serve",
        "--check-config",
        "--data-dir",
        &data,
        "--config",
        &config,
    ];
    let outcome = layerd(serve).await.failed();
    assert!(
        outcome.stderr.contains("no private key"),
        "{}",
        outcome.stderr
    );
}
