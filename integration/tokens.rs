//! `layerd token` as scripts use it: options from everywhere, exit codes, and
//! nothing but the token on stdout.

use serde_json::Value;

use crate::harness::{Lab, Outcome, layerd, layerd_with};

/// Runs `layerd token ARGUMENTS...` with an environment and a standard input.
async fn token(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Outcome {
    layerd_with(["token"].iter().chain(arguments), environment, input).await
}

async fn key(lab: &Lab, name: &str) -> String {
    let path = lab.path(name).display().to_string();
    let made = token(&["key", "-o", &path], &[], "").await.ok();
    assert_eq!(made.stdout, "ci\n");
    path
}

#[tokio::test]
async fn what_mint_prints_is_the_token_and_explain_reads_it() {
    let lab = Lab::new();
    let key = key(&lab, "ci.pem").await;
    let file = ["--token-key-file", &key];
    let refs = ["--project=acme/shop", "--read", "main", "--write=feat/*"];
    let minted = token(&[&["mint"], &file[..], &refs].concat(), &[], "")
        .await
        .ok();
    let text = minted.stdout.trim();
    assert_eq!(minted.stdout, format!("{text}\n"));
    assert_eq!(text.split('.').count(), 3, "{text}");

    let told = token(&["explain", "-"], &[], &minted.stdout)
        .await
        .ok()
        .stdout;
    for part in [
        "acme/shop",
        "refs/heads/main",
        "refs/heads/feat/*",
        "NOT CHECKED",
    ] {
        assert!(told.contains(part), "no {part} in\n{told}");
    }
    let checked = [&["explain", "--json"], &file[..], &["-"]].concat();
    let checked = token(&checked, &[], &minted.stdout).await.ok().stdout;
    let checked: Value = serde_json::from_str(&checked).unwrap();
    assert_eq!(checked["signature"], "valid", "{checked:#}");
    assert_eq!(checked["kid"], "ci");
    assert_eq!(checked["refused"], Value::Null);
}

#[tokio::test]
async fn options_come_from_the_environment_and_from_a_daemons_file() {
    let lab = Lab::new();
    let key = key(&lab, "ci.pem").await;
    let config = lab.path("layerd.toml");
    let toml = format!("listen = 'x'\nproject = 'from/file'\ntoken-key-file = '{key}'\n");
    std::fs::write(&config, toml).unwrap();
    let mint = ["mint", "--json", "--config", config.to_str().unwrap()];
    let environment = [("LAYERD_READ", "main,feat/*"), ("LAYERD_TTL", "90d")];
    let minted = token(&mint, &environment, "").await.ok().stdout;
    let minted: Value = serde_json::from_str(&minted).unwrap();
    assert_eq!(minted["project"], "from/file");
    let read = serde_json::json!(["refs/heads/main", "refs/heads/feat/*"]);
    assert_eq!(minted["read"], read);
    let both = [&environment[..], &[("LAYERD_PROJECT", "from/env")]].concat();
    let minted = token(&mint, &both, "").await.ok().stdout;
    assert!(minted.contains("from/env"), "{minted}");
}

#[tokio::test]
async fn what_is_refused_is_exit_code_one_and_wrong_usage_is_two() {
    let lab = Lab::new();
    let key = key(&lab, "ci.pem").await;
    let file = ["--token-key-file", &key];
    for (arguments, code) in [
        (&["explain", "nonsense"][..], 1),
        (&["explain", "e30.e30.e30"], 1),
        (&["key", "-o", &key], 1),
        (
            &[
                "mint",
                "--token-key-file=/nowhere",
                "--project=p",
                "--read=x",
            ],
            1,
        ),
        (&["mint"], 2),
        (&[&["mint", "--project=p"], &file[..]].concat(), 2),
        (
            &[&["mint", "--project=..", "--read=x"], &file[..]].concat(),
            2,
        ),
        (
            &[&["mint", "--project=p", "--read=***"], &file[..]].concat(),
            2,
        ),
        (
            &[&["mint", "--project=p", "--read=x", "--ttl=91d"], &file[..]].concat(),
            2,
        ),
        (&["key"], 2),
        (&["key", "-o", "x", "--algorithm=rs256"], 2),
    ] {
        let outcome = layerd(["token"].iter().chain(arguments)).await;
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(
            !outcome.stderr.is_empty() && outcome.stdout.is_empty(),
            "{outcome:?}"
        );
    }
}
