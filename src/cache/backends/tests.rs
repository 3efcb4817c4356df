use super::*;
use crate::blobs::{TierMetrics, TierOptions};
use crate::cache::LocalCache;

fn embedded(dir: &tempfile::TempDir) -> Backends {
    Backends::embedded(Arc::new(LocalCache::new(dir.path())))
}

async fn settings(dir: &tempfile::TempDir) -> HubSettings {
    let metrics = TierMetrics::default();
    HubSettings {
        near: Near::open(dir.path(), TierOptions::default(), metrics).await,
        patience: Duration::ZERO,
        tls: None,
        calls: remote::Metrics::default(),
        blobs: Metrics::default(),
        outbox: None,
    }
}

async fn with_hub(dir: &tempfile::TempDir) -> Backends {
    let settings = settings(dir).await;
    let address = "http://hub:8700".parse().unwrap();
    let hub = Hub::new([address], None, settings.calls.clone());
    let own = TokenSource::given(Secret::new("own"));
    Backends::hub(Arc::new(hub), own, settings)
}

fn hub(text: &str) -> Address {
    Address::Hub(text.parse().unwrap())
}

#[tokio::test]
async fn without_a_hub_there_is_the_store_of_this_host() {
    let dir = tempfile::tempdir().unwrap();
    let backends = embedded(&dir);
    let unsaid = backends.resolve(&Address::Unsaid, None).unwrap();
    assert_eq!(backends.resolve(&Address::Local, None).unwrap(), unsaid);
    let error = backends.resolve(&hub("http://hub:8700"), None).unwrap_err();
    assert!(
        error.to_string().contains("--allow-hub http://hub:8700"),
        "{error}"
    );
}

#[tokio::test]
async fn with_a_hub_local_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let backends = with_hub(&dir).await;
    let error = backends.resolve(&Address::Local, None).unwrap_err();
    assert!(error.to_string().contains("http://hub:8700"), "{error}");
    let own = backends.resolve(&Address::Unsaid, None).unwrap();
    let named = backends.resolve(&hub("http://HUB:8700/"), None).unwrap();
    assert_eq!(own, named);
}

#[tokio::test]
async fn builds_share_a_cache_by_hub_and_token() {
    let dir = tempfile::tempdir().unwrap();
    let backends = with_hub(&dir).await.allowing(vec![Allowed::Any], None);
    let [one, two] = ["one", "two"].map(Secret::new);
    let of = |address: &Address, token| backends.resolve(address, token).unwrap();
    let other = hub("http://other");
    let all = [
        of(&Address::Unsaid, None),
        of(&Address::Unsaid, Some(&one)),
        of(&Address::Unsaid, Some(&two)),
        of(&other, None),
        of(&other, Some(&one)),
        of(&hub("https://other"), Some(&one)),
    ];
    for (at, backend) in all.iter().enumerate() {
        assert!(!all[..at].contains(backend), "{at}");
    }
    assert_eq!(of(&other, Some(&one)), all[4]);
    assert_eq!(of(&Address::Unsaid, Some(&two)), all[2]);
}

#[tokio::test]
async fn only_what_is_allowed_can_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let allowed = vec!["http://other:80".parse().unwrap()];
    let backends = embedded(&dir).allowing(allowed, Some(settings(&dir).await));
    backends.resolve(&hub("http://other"), None).unwrap();
    backends.resolve(&hub("https://other"), None).unwrap_err();
    let other = Address::Other("ftp://x".to_owned(), "why".to_owned());
    backends.resolve(&other, None).unwrap_err();
}
