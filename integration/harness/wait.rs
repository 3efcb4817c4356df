//! Waiting for a condition, never for a time.

use std::time::Duration;

/// How long anything may take before a test gives up on it. Far beyond what is
/// usual, so that a slow machine fails nothing.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Asks until the answer is there; panics, saying `what`, past [`DEADLINE`].
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, poll).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}
