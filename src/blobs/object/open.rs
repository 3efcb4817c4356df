//! A bucket's address, as people write it.
//!
//! Options come from the provider's usual environment variables and from the
//! URL's query, which counts where both are given.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};
use url::Url;

use super::bucket::Backend;
use super::errors::presentable;

/// A bucket that was found out how to reach.
pub(super) struct Opened {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) prefix: Path,
    pub(super) place: String,
}

/// Why a text is no store of objects. It never shows an option's value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStore {
    /// Not an address at all, or not one of a provider that is known.
    #[error("expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX")]
    Address,
    /// An option that the provider does not have.
    #[error("{place} has no option {option:?}; known are {}", known.join(", "))]
    Option {
        /// The bucket.
        place: String,
        /// What was given.
        option: String,
        /// What could be.
        known: &'static [&'static str],
    },
    /// Plain HTTP, and nobody said that it may be.
    #[error("the endpoint of {0} is plain HTTP: say allow_http=true if it may be")]
    PlainHttp(String),
    /// The provider's options don't go together.
    #[error("{place}: {problem}")]
    Config {
        /// The bucket.
        place: String,
        /// What is wrong with them.
        problem: String,
    },
}

const S3: [&str; 17] = [
    "access_key_id",
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "endpoint",
    "proxy_url",
    "read_timeout",
    "region",
    "request_payer",
    "secret_access_key",
    "server_side_encryption",
    "session_token",
    "skip_signature",
    "sse_bucket_key_enabled",
    "sse_kms_key_id",
    "unsigned_payload",
    "virtual_hosted_style_request",
];

const GOOGLE: [&str; 9] = [
    "allow_invalid_certificates",
    "application_credentials",
    "connect_timeout",
    "endpoint",
    "proxy_url",
    "read_timeout",
    "service_account",
    "service_account_key",
    "skip_signature",
];

const AZURE: [&str; 15] = [
    "access_key",
    "account_name",
    "allow_http",
    "allow_invalid_certificates",
    "client_id",
    "client_secret",
    "connect_timeout",
    "endpoint",
    "proxy_url",
    "read_timeout",
    "sas_token",
    "skip_signature",
    "tenant_id",
    "use_azure_cli",
    "use_emulator",
];

/// How long a connection may take to come about, a server to say anything, and
/// a request in all: bodies are as long as they are.
const TIMES: [(ClientConfigKey, &str); 3] = [
    (ClientConfigKey::ConnectTimeout, "5s"),
    (ClientConfigKey::ReadTimeout, "30s"),
    (ClientConfigKey::Timeout, "1day"),
];

/// A request that fails is made again, for so long.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 5,
        retry_timeout: Duration::from_secs(30),
    }
}

/// Reads the address and the options; asks nobody.
pub(super) fn open(address: &str) -> Result<Opened, InvalidStore> {
    // The client takes what the process has; the same as everywhere here.
    tokio_rustls::rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let url = Url::parse(address).map_err(|_| InvalidStore::Address)?;
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
    let bucket = bucket.ok_or(InvalidStore::Address)?;
    let unusual = !url.username().is_empty() || url.password().is_some() || url.port().is_some();
    if unusual || url.fragment().is_some() {
        return Err(InvalidStore::Address);
    }
    let prefix = Path::from_url_path(url.path()).map_err(|_| InvalidStore::Address)?;
    let place = match prefix.as_ref() {
        "" => format!("{}://{bucket}", url.scheme()),
        prefix => format!("{}://{bucket}/{prefix}", url.scheme()),
    };
    let backend = match url.scheme() {
        "s3" => s3(&url, bucket, &place)?,
        "gs" => google(&url, bucket, &place)?,
        "az" => azure(&url, bucket, &place)?,
        _ => return Err(InvalidStore::Address),
    };
    Ok(Opened {
        backend,
        prefix,
        place,
    })
}

/// The options of the query, each as the provider's own.
fn options<K: FromStr>(
    url: &Url,
    place: &str,
    known: &'static [&'static str],
) -> Result<Vec<(K, String)>, InvalidStore> {
    let parse = |(option, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
        let named = match (&*option, url.scheme()) {
            ("endpoint", "gs") => "base_url",
            (option, _) => option,
        };
        let key = known
            .contains(&&*option)
            .then(|| named.parse().ok())
            .flatten();
        let unknown = || InvalidStore::Option {
            place: place.to_owned(),
            option: presentable(&option),
            known,
        };
        Ok((key.ok_or_else(unknown)?, value.into_owned()))
    };
    url.query_pairs().map(parse).collect()
}

fn s3(url: &Url, bucket: &str, place: &str) -> Result<Arc<dyn Backend>, InvalidStore> {
    let mut builder = AmazonS3Builder::from_env();
    for (key, value) in TIMES {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    for (key, value) in options::<AmazonS3ConfigKey>(url, place, &S3)? {
        builder = builder.with_config(key, value);
    }
    let allow_http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
    let given = |key| builder.get_config_value(&key);
    let endpoint = given(AmazonS3ConfigKey::S3Endpoint).or(given(AmazonS3ConfigKey::Endpoint));
    let plain = is_plain(endpoint.as_deref());
    if plain && !is_yes(given(allow_http)) {
        return Err(InvalidStore::PlainHttp(place.to_owned()));
    }
    if given(AmazonS3ConfigKey::UnsignedPayload).as_deref() != Some("true") {
        // TLS keeps the bytes whole; hashing them once more would be for
        // nothing.
        let said = url.query_pairs().any(|(key, _)| key == "unsigned_payload")
            || std::env::var_os("AWS_UNSIGNED_PAYLOAD").is_some();
        builder = builder.with_unsigned_payload(!plain && !said);
    }
    let built = builder
        .with_bucket_name(bucket)
        .with_retry(retries())
        .build();
    Ok(Arc::new(built.map_err(|error| config(place, &error))?))
}

fn google(url: &Url, bucket: &str, place: &str) -> Result<Arc<dyn Backend>, InvalidStore> {
    let mut builder = GoogleCloudStorageBuilder::from_env();
    for (key, value) in TIMES {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    for (key, value) in options::<GoogleConfigKey>(url, place, &GOOGLE)? {
        builder = builder.with_config(key, value);
    }
    let built = builder
        .with_bucket_name(bucket)
        .with_retry(retries())
        .build();
    Ok(Arc::new(built.map_err(|error| config(place, &error))?))
}

fn azure(url: &Url, container: &str, place: &str) -> Result<Arc<dyn Backend>, InvalidStore> {
    let mut builder = MicrosoftAzureBuilder::from_env();
    for (key, value) in TIMES {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    for (key, value) in options::<AzureConfigKey>(url, place, &AZURE)? {
        builder = builder.with_config(key, value);
    }
    let allow_http = AzureConfigKey::Client(ClientConfigKey::AllowHttp);
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    if is_plain(endpoint.as_deref()) && !is_yes(builder.get_config_value(&allow_http)) {
        return Err(InvalidStore::PlainHttp(place.to_owned()));
    }
    let built = builder
        .with_container_name(container)
        .with_retry(retries())
        .build();
    Ok(Arc::new(built.map_err(|error| config(place, &error))?))
}

/// As the client reads it.
fn is_yes(value: Option<String>) -> bool {
    let value = value.unwrap_or_default().to_ascii_lowercase();
    ["1", "true", "on", "yes", "y"].contains(&value.as_str())
}

fn is_plain(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

fn config(place: &str, error: &object_store::Error) -> InvalidStore {
    InvalidStore::Config {
        place: place.to_owned(),
        problem: presentable(&error.to_string()),
    }
}
