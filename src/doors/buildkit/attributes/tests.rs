//! What a user may write, and what they are told.

use proptest::prelude::*;

use super::*;

fn attributes(text: &str) -> Attributes {
    text.split(',')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap())
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

fn export(text: &str) -> Result<ExportEntry, InvalidAttribute> {
    ExportEntry::parse(&attributes(text), &Defaults::default())
}

fn import(text: &str) -> Result<ImportEntry, InvalidAttribute> {
    ImportEntry::parse(
        &attributes(text),
        &Defaults::default(),
        Timestamp::UNIX_EPOCH,
    )
}

#[test]
fn nothing_said_is_the_default_place() {
    let entry = export("").unwrap();
    assert_eq!(
        entry.place.to_string(),
        "project default, ref refs/heads/main, scope buildkit"
    );
    assert!(!entry.strict);
    assert_eq!(import("url=local").unwrap().address, Address::Local);
    let hub = import("url=http://hub:8700,token=t").unwrap();
    assert_eq!(
        hub.address,
        Address::Hub("http://hub:8700".parse().unwrap())
    );
    assert_eq!(hub.token, Some(Secret::new("t")));
}

#[test]
fn attributes_override_flags() {
    let defaults = Defaults {
        project: "acme/shop".parse().unwrap(),
        git_ref: "dev".parse().unwrap(),
        fallbacks: vec!["main".parse().unwrap()],
    };
    let entry = ImportEntry::parse(
        &attributes("ref=feat,scope=api"),
        &defaults,
        Timestamp::UNIX_EPOCH,
    )
    .unwrap();
    assert_eq!(
        entry.want.place.to_string(),
        "project acme/shop, ref refs/heads/feat, scope api"
    );
    assert_eq!(entry.want.fallbacks, defaults.fallbacks);
    let entry = ImportEntry::parse(
        &attributes("fallback=a;b"),
        &defaults,
        Timestamp::UNIX_EPOCH,
    )
    .unwrap();
    assert_eq!(
        entry.want.fallbacks,
        ["a".parse().unwrap(), "b".parse().unwrap()]
    );
}

#[test]
fn an_unknown_attribute_is_named_with_the_known_ones() {
    let error = export("mdoe=max").unwrap_err().to_string();
    assert!(
        error.contains("\"mdoe\"") && error.contains("mode") && error.contains("scope"),
        "{error}"
    );
}

#[test]
fn a_bad_value_names_its_attribute() {
    for (text, key) in [
        ("mode=maximum", "mode"),
        ("compression=lz4", "compression"),
        ("compression-level=many", "compression-level"),
        ("compression-level=99", "compression-level"),
        ("force-compression=maybe", "force-compression"),
        ("ignore-error=no", "ignore-error"),
        ("timeout=soon", "timeout"),
        ("ref=a..b", "ref"),
        ("project=../other", "project"),
        ("scope=*", "scope"),
        ("max-age=7d", "max-age"),
    ] {
        let error = export(text).unwrap_err().to_string();
        assert!(error.contains(key), "{text}: {error}");
    }
}

#[test]
fn a_gha_line_works_unchanged() {
    let entry = export(
        "url=https://results.example/x?sig=s3cret,url_v2=https://y,token=t,ghtoken=g,repository=a/b,version=2,scope=ci,timeout=10m,mode=max",
    );
    let entry = entry.unwrap();
    let Address::Other(shown, _) = entry.address else {
        panic!("{:?}", entry.address);
    };
    assert_eq!(shown, "https://results.example/x");
    assert_eq!(entry.passed_on, attributes("mode=max"));
}

#[test]
fn an_address_that_is_none_is_told_without_what_is_secret_in_it() {
    for url in [
        "http://user:hunter2@cache:8700",
        "http://user:hunt/er2hunter2@cache",
        "http://user:x?hunter2@cache",
        "http://user:x#hunter2@cache",
        "http:/user:hunter2@cache",
        "user:hunter2@cache",
        "user:hunter2@cache://x",
        "https://cache/x?token=hunter2",
        "https://cache/x?token=x@hunter2",
        "https://cache/x#hunter2",
    ] {
        let Address::Other(shown, why) = export(&format!("url={url}")).unwrap().address else {
            panic!("{url} is an address");
        };
        assert!(!format!("{shown} {why}").contains("hunt"), "{url}: {shown}");
    }
}

#[test]
fn durations_are_those_that_people_write() {
    for (text, seconds) in [("90s", 90), ("10m", 600), ("1h30m", 5400), ("7d", 604_800)] {
        assert_eq!(
            parse_duration(text),
            Ok(Duration::from_secs(seconds)),
            "{text}"
        );
    }
    assert!(parse_duration("-1s").is_err());
}

proptest! {
    #[test]
    fn any_attributes_are_parsed_or_refused_and_no_secret_is_told(
        key in "[a-z-]{1,20}", value in ".{0,40}", secret in "[A-Za-z0-9]{24}"
    ) {
        let mut given = Attributes::from([(key, value)]);
        given.insert("token".into(), secret.clone());
        if let Err(error) = ExportEntry::parse(&given, &Defaults::default()) {
            prop_assert!(!error.to_string().contains(&secret));
        }
        if let Err(error) = ImportEntry::parse(&given, &Defaults::default(), Timestamp::UNIX_EPOCH) {
            prop_assert!(!error.to_string().contains(&secret));
        }
    }
}
