//! Where the database is: the URL, without what it keeps secret.

use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;

use crate::catalog::CatalogError;

/// What the URL's query may say, as libpq has it
/// (postgresql.org/docs/current/libpq-connect.html); there are more that do not
/// matter here.
const KEYS: [&str; 12] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// How to connect, and the name of the database for people: its host, its port
/// and its own name.
pub(super) fn parse(url: &str) -> Result<(PgConnectOptions, String), CatalogError> {
    let invalid = |why: String| CatalogError::InvalidUrl(why);
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(invalid("expected postgres://HOST/DATABASE".to_owned()));
    }
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let key = pair.split_once('=').map_or(pair, |(key, _)| key);
        if KEYS.contains(&key) {
            continue;
        }
        // Part of a password that was not escaped is no key, and never shown.
        let plain = key
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let named = if plain { key } else { "something" };
        return Err(invalid(format!(
            "its query has {named}; known are {}",
            KEYS.join(", ")
        )));
    }
    // What is wrong may be quoted: only the kinds of it that are not are told.
    let options = PgConnectOptions::from_str(url).map_err(|_| {
        invalid(
            "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full, with special characters as %XX"
                .to_owned(),
        )
    })?;
    let options = match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("layerd"),
    };
    let place = options.get_socket().map_or_else(
        || format!("{}:{}", options.get_host(), options.get_port()),
        |socket| socket.display().to_string(),
    );
    // As the server does where no database is named.
    let database = options
        .get_database()
        .unwrap_or_else(|| options.get_username());
    let name = format!("postgres://{place}/{database}");
    Ok((options, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_secret_and_no_user() {
        for (url, expected) in [
            (
                "postgres://layerd:hunter2@db.internal:6432/cache?sslmode=require",
                "postgres://db.internal:6432/cache",
            ),
            (
                "postgresql:///cache?host=/run/postgresql&user=layerd&password=hunter2",
                "postgres:///run/postgresql/cache",
            ),
        ] {
            assert_eq!(parse(url).unwrap().1, expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_url_or_has_an_unknown_key_is_refused_without_its_secret() {
        for url in [
            "mysql://u:hunter2@host/db",
            "postgres://u:hunter2@host:port/db",
            "postgres://u:pa?hunter2@host/db",
            "postgres://u:hunter2@host/db?sslmod=require",
            "postgres://u:hunter2@host/db?sslmode=hunter2",
        ] {
            let error = parse(url).unwrap_err();
            assert!(matches!(error, CatalogError::InvalidUrl(_)), "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let error = parse("postgres://host/db?sslmod=require").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sslmod;") && text.contains("sslmode"),
            "{text}"
        );
    }
}
