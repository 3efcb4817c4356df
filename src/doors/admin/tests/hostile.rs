//! What nobody should send.

use super::*;

#[tokio::test]
async fn whatever_is_wrong_is_told_in_one_shape() {
    let lab = Lab::new().await;
    let token = lab.admin(None);
    let many: String = (0..10_000).map(|_| "p=1&").collect();
    let long = "x".repeat(2000);
    for (method, path, status) in [
        ("GET", "/v1/exports?limi=5".to_owned(), 400),
        ("GET", "/v1/exports?limit=5&limit=6".to_owned(), 400),
        ("GET", format!("/v1/exports?{many}"), 400),
        ("GET", "/v1/whoami?x=1".to_owned(), 400),
        ("GET", "/v1/exports?project=..".to_owned(), 400),
        ("GET", "/v1/exports?project=%00".to_owned(), 400),
        ("GET", "/v1/projects/%2e%2e%2fetc%2fpasswd".to_owned(), 400),
        ("GET", "/v1/projects/../../etc/passwd".to_owned(), 404),
        ("GET", "/v1/projects/%ff".to_owned(), 400),
        ("GET", format!("/v1/projects/{long}"), 400),
        ("GET", "/v1/projects/a/b".to_owned(), 404),
        ("GET", "/v1/projects/nobody%2Fknows".to_owned(), 404),
        ("GET", "/v1/exports/abc".to_owned(), 400),
        ("GET", "/v1/exports/9223372036854775807".to_owned(), 404),
        ("GET", "/v1/exports/-9223372036854775808".to_owned(), 404),
        ("GET", "/v1/exports/9223372036854775808".to_owned(), 400),
        ("GET", "/v1/usage/days?after=x".to_owned(), 400),
        ("GET", "/v1/nowhere".to_owned(), 404),
        ("PATCH", "/v1/exports".to_owned(), 405),
        ("TRACE", "/v1/whoami".to_owned(), 405),
    ] {
        let told = lab.ask(method, &path, Some(&token), None).await;
        let shown = path.chars().take(60).collect::<String>();
        assert_eq!(
            told.status.as_u16(),
            status,
            "{method} {shown}: {}",
            told.json
        );
        assert!(!told.code().is_empty(), "{method} {shown}: {}", told.json);
        let message = told.json["error"]["message"].as_str().unwrap_or_default();
        assert!(
            !message.contains("deserialize"),
            "{method} {shown}: {message}"
        );
        assert!(told.json.to_string().len() < 3000, "{method} {shown}");
    }
}

#[tokio::test]
async fn a_body_is_json_of_the_right_shape_and_size() {
    let lab = Lab::new().await;
    lab.export("p", "main").await;
    let token = lab.admin(None);
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let huge = format!("{{\"ref\":\"{}\"}}", "x".repeat(70_000));
    for (kind, body, status) in [
        ("application/json", "{}".to_owned(), 200),
        ("application/json; charset=utf-8", "{}".to_owned(), 200),
        ("text/plain", "{}".to_owned(), 415),
        ("application/json", String::new(), 400),
        ("application/json", "{".to_owned(), 400),
        ("application/json", "[]".to_owned(), 400),
        ("application/json", "null".to_owned(), 400),
        ("application/json", "{\"ref\":7}".to_owned(), 400),
        ("application/json", "{\"reff\":\"main\"}".to_owned(), 400),
        ("application/json", "{\"ref\":\"a..b\"}".to_owned(), 400),
        (
            "application/json",
            "{\"ref\":\"a\",\"ref\":\"b\"}".to_owned(),
            400,
        ),
        ("application/json", deep, 400),
        ("application/json", huge, 413),
    ] {
        let request = Request::builder()
            .method("POST")
            .uri("/v1/projects/p/flush")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header(CONTENT_TYPE, kind);
        let shown: String = body.chars().take(40).collect();
        let told = lab.asked(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(
            told.status.as_u16(),
            status,
            "{kind} {shown}: {}",
            told.json
        );
        assert_eq!(told.code().is_empty(), status == 200, "{kind} {shown}");
    }
}

#[tokio::test]
async fn no_answer_is_kept_or_guessed_at_and_other_sites_may_read_none() {
    let lab = Lab::new().await;
    let token = lab.admin(None);
    for path in ["/v1/whoami", "/v1/exports/7", DOCUMENT] {
        let told = lab.get(path, &token).await;
        assert_eq!(told.headers["cache-control"], "no-store", "{path}");
        assert_eq!(told.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(told.headers["content-type"], "application/json", "{path}");
        assert!(!told.headers.contains_key("access-control-allow-origin"));
    }
}
