//! What an identity token says of its bearer.

use serde_json::{Map, Value};

/// The claims of a token. Which of them there are is up to its issuer.
#[derive(Clone, Debug)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Of what stands in a token.
    pub fn new(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    /// A claim by its name; one inside of another by a path:
    /// `kubernetes.io/namespace`. A claim of that very name comes first.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).or_else(|| {
            let (first, path) = name.split_once('/')?;
            let inside = self.0.get(first)?;
            path.split('/')
                .try_fold(inside, |value, part| value.as_object()?.get(part))
        })
    }

    /// A claim that is one text, one number, or true or false.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(scalar)
    }

    /// The same, or each that is one of a list.
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Some(Value::Array(several)) => several.iter().filter_map(scalar).collect(),
            Some(value) => scalar(value).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// Seconds since 1970, of which there may be fractions (RFC 7519, 2).
    pub fn seconds(&self, name: &str) -> Option<i64> {
        let value = self.get(name)?;
        let whole = value.as_i64();
        whole.or_else(|| value.as_f64().map(|seconds| seconds as i64))
    }

    /// All of them, by name.
    pub fn all(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_inside_of_another_has_a_path() {
        let Value::Object(claims) = json!({
            "kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "builder"}},
            "https://x/roles": ["a", 1, {}], "n": 7, "empty": "",
        }) else {
            panic!("an object");
        };
        let claims = Claims::new(claims);
        let text = |name: &str| claims.text(name);
        assert_eq!(text("kubernetes.io/namespace").as_deref(), Some("ci"));
        assert_eq!(
            text("kubernetes.io/serviceaccount/name").as_deref(),
            Some("builder")
        );
        assert_eq!(text("kubernetes.io/absent"), None);
        assert_eq!(text("n/x"), None);
        assert_eq!(text("empty").as_deref(), Some(""));
        assert_eq!(claims.texts("https://x/roles"), ["a", "1"]);
        assert_eq!(claims.texts("n"), ["7"]);
        assert_eq!(claims.seconds("n"), Some(7));
    }
}
