//! A server on loopback: what is taken from it, and what is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;

use super::*;
use crate::model::{SourcePolicy, Tenant};

/// Where it listens, and how often `/late` was asked for.
async fn server() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let late = move || {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        async move { if nth == 0 { Err(axum::http::StatusCode::SERVICE_UNAVAILABLE) } else { Ok("file") } }
    };
    let router = Router::new()
        .route("/file", get(async || "file"))
        .route("/late", get(late))
        .route("/to-file", get(async || Redirect::temporary("/file")))
        .route("/round", get(async || Redirect::temporary("/round")))
        .route("/to-metadata", get(async || Redirect::temporary("http://169.254.169.254/latest")))
        .route("/to-git", get(async || Redirect::temporary("ssh://git@example.com/x")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), asked)
}

/// The rules of an app where the operator allows these addresses.
fn rules(remote_sources: &[&str]) -> SourceRules {
    let policy = SourcePolicy {
        remote_sources: remote_sources.iter().map(ToString::to_string).collect(),
        ..SourcePolicy::default()
    };
    let own = "localhost:5000/shop".parse().unwrap();
    SourceRules::new(&policy, &Tenant { own: &own, prefix: None, others: &[], frontends: &[] }).unwrap()
}

async fn take(url: &str, text: &str, rules: &SourceRules) -> Result<u64, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it");
    let config = FetchConfig { bytes_limit: 4, ..FetchConfig::default() };
    let fetched = Fetcher::new(config).unwrap().file(url, &Digest::of(text.as_bytes()), rules, &path).await;
    assert_eq!(path.exists(), fetched.is_ok(), "a file stands there whole or not at all");
    fetched.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_file_is_taken_where_its_digest_is_right() {
    let (base, asked) = server().await;
    let open = SourceRules::default();
    assert_eq!(take(&format!("{base}/file"), "file", &open).await, Ok(4));
    assert_eq!(take(&format!("{base}/to-file"), "file", &open).await, Ok(4));
    assert_eq!(take(&format!("{base}/late"), "file", &open).await, Ok(4));
    assert_eq!(asked.load(Ordering::Relaxed), 2, "a server that was busy is asked again");
    let wrong = take(&format!("{base}/file"), "other", &open).await.unwrap_err();
    assert!(wrong.contains("another file than was asked for"), "{wrong}");
    for (path, said) in [
        ("missing", "answered 404 Not Found"),
        ("round", "more than 5 redirects"),
        ("to-git", "only http and https are"),
    ] {
        let error = take(&format!("{base}/{path}"), "file", &open).await.unwrap_err();
        assert!(error.contains(said), "{path}: {error}");
    }
}

#[tokio::test]
async fn a_file_that_is_too_large_is_not_taken() {
    let (base, _) = server().await;
    let fetcher = Fetcher::new(FetchConfig { bytes_limit: 3, ..FetchConfig::default() }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("it");
    let url = format!("{base}/file");
    let error = fetcher.file(&url, &Digest::of(b"file"), &SourceRules::default(), &into).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { limit_bytes: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_push_reaches_nothing_inside_the_network() {
    let (base, _) = server().await;
    let address = base.trim_start_matches("http://");
    let closed = rules(&[]);
    let refused = take(&format!("{base}/file"), "file", &closed).await.unwrap_err();
    assert!(refused.contains("builds fetch nothing from addresses inside this network"), "{refused}");
    // what the operator has named is reached, and leads nowhere else
    let named = rules(&[address]);
    assert_eq!(take(&format!("{base}/to-file"), "file", &named).await, Ok(4));
    let led = take(&format!("{base}/to-metadata"), "file", &named).await.unwrap_err();
    assert!(led.contains("169.254.169.254") && led.contains("is refused"), "{led}");
}

#[tokio::test]
async fn a_name_that_stands_for_an_inner_address_is_refused() {
    // the rules know no such name; the system's resolver does
    let client = Client::builder().dns_resolver(Arc::new(PublicOnly)).build().unwrap();
    let error = client.get("http://localhost:9/").send().await.unwrap_err();
    assert_eq!(address::refused(&error).as_deref(), Some("localhost"));
}
