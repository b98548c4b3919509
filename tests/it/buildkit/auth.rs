//! The session's credentials and tokens, asked for as the daemon does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use lemnos::buildkit::session::DOCKER_HUB_KEY;
use lemnos::buildkit::{AuthProvider, Credential, Session};
use lemnos_proto::control::SolveResponse;
use lemnos_proto::session::auth_client::AuthClient;
use lemnos_proto::session::{
    CredentialsRequest, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    VerifyTokenAuthorityRequest,
};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::dockerfile;
use crate::fake::buildkitd::{Daemon, Script};

#[derive(Default)]
struct Known {
    credentials: BTreeMap<String, Credential>,
    asked: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl AuthProvider for Known {
    async fn credentials(&self, host: &str) -> Result<Option<Credential>, String> {
        self.asked.lock().unwrap().push(host.to_owned());
        Ok(self.credentials.get(host).cloned())
    }
}

fn password(username: &str, secret: &str) -> Credential {
    Credential { username: username.into(), secret: secret.into(), identity_token: None }
}

fn known(credentials: &[(&str, Credential)]) -> Arc<Known> {
    let credentials = credentials.iter().map(|(host, c)| (host.to_string(), c.clone())).collect();
    Arc::new(Known { credentials, asked: Mutex::default() })
}

/// Runs a build in whose session `ask` is asked.
async fn in_session<T, F>(
    provider: Arc<Known>,
    ask: impl Fn(AuthClient<Channel>) -> F + Send + Sync + 'static,
) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (answers, mut answered) = mpsc::unbounded_channel();
    let ask = Arc::new(ask);
    let script = Script::default().solve(move |request, daemon| {
        let (answers, ask) = (answers.clone(), ask.clone());
        async move {
            let peer = daemon.peer(&request.session).await;
            answers.send(ask(AuthClient::new(peer.channel)).await).unwrap();
            Ok(SolveResponse::default())
        }
    });
    let daemon = Daemon::new(script).listen();
    let mut request = dockerfile(&[]);
    request.session = Session { auth: Some(provider), ..request.session };
    daemon.client().await.solve(request, |_| {}).await.unwrap();
    answered.recv().await.unwrap()
}

async fn credentials(provider: Arc<Known>, host: &'static str) -> (String, String) {
    let ask = move |mut auth: AuthClient<Channel>| async move {
        auth.credentials(CredentialsRequest { host: host.into() }).await
    };
    let answer = in_session(provider, ask).await.unwrap().into_inner();
    (answer.username, answer.secret)
}

#[tokio::test]
async fn credentials_go_to_their_own_host_only() {
    let provider =
        known(&[("r.example", password("me", "secret")), (DOCKER_HUB_KEY, password("hub", "hubsecret"))]);
    let pair = |user: &str, secret: &str| (user.to_owned(), secret.to_owned());
    for (host, want) in [
        ("r.example", pair("me", "secret")),
        ("r.example.evil", pair("", "")),
        ("evil-r.example", pair("", "")),
        ("r.example:443", pair("", "")),
        ("registry-1.docker.io", pair("hub", "hubsecret")),
        ("docker.io.evil", pair("", "")),
        ("", pair("", "")),
    ] {
        assert_eq!(credentials(provider.clone(), host).await, want, "{host}");
    }
    let asked = provider.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            "r.example",
            "r.example.evil",
            "evil-r.example",
            "r.example:443",
            DOCKER_HUB_KEY,
            "docker.io.evil",
            ""
        ]
    );
}

#[tokio::test]
async fn an_identity_token_comes_without_a_user_name() {
    let token = Credential { identity_token: Some("refresh".into()), ..password("me", "unused") };
    let answer = credentials(known(&[("r.example", token)]), "r.example").await;
    assert_eq!(answer, (String::new(), "refresh".into()));
}

#[tokio::test]
async fn no_token_authority_is_said_with_the_code_that_does_not_fail_a_pull() {
    let ask = |mut auth: AuthClient<Channel>| async move {
        let get = auth.get_token_authority(GetTokenAuthorityRequest::default()).await.map(drop);
        let verify = auth.verify_token_authority(VerifyTokenAuthorityRequest::default()).await.map(drop);
        [get.unwrap_err().code(), verify.unwrap_err().code()]
    };
    assert_eq!(in_session(known(&[]), ask).await, [Code::Unimplemented; 2]);
}

/// One request to the token service: method, authorization, query or form.
type Seen = Arc<Mutex<Vec<(Method, Option<String>, String)>>>;

/// A token service on loopback that gives `answer`.
async fn token_service<R: IntoResponse + 'static>(
    answer: impl Fn(&Method) -> R + Clone + Send + Sync + 'static,
) -> (String, Seen) {
    let seen = Seen::default();
    let noted = seen.clone();
    let app = Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: String| {
        let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let text = if body.is_empty() { uri.query().unwrap_or_default().to_owned() } else { body };
        let response = answer(&method).into_response();
        noted.lock().unwrap().push((method, authorization, text));
        async move { response }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = format!("http://{}/token", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (realm, seen)
}

async fn fetch(
    provider: Arc<Known>,
    host: &'static str,
    realm: String,
) -> Result<FetchTokenResponse, Status> {
    let request = FetchTokenRequest {
        client_id: "buildkit-client".into(),
        host: host.into(),
        realm,
        service: "registry".into(),
        scopes: vec!["repository:a/b:pull,push".into(), "repository:c:pull".into()],
    };
    let ask = move |mut auth: AuthClient<Channel>| {
        let request = request.clone();
        async move { auth.fetch_token(request).await }
    };
    in_session(provider, ask).await.map(tonic::Response::into_inner)
}

const HOST: &str = "127.0.0.1:5000";
const TOKEN: &str = r#"{"access_token":"t","expires_in":300,"issued_at":"2026-01-02T03:04:05Z"}"#;

#[tokio::test]
async fn a_password_buys_a_token_with_one_post() {
    let (realm, seen) = token_service(|_| TOKEN).await;
    let token = fetch(known(&[(HOST, password("me", "s&crt"))]), HOST, realm).await.unwrap();
    assert_eq!((token.token.as_str(), token.expires_in, token.issued_at), ("t", 300, 1_767_323_045));
    let seen = seen.lock().unwrap().clone();
    let [(method, None, form)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(method, Method::POST);
    for field in ["grant_type=password", "username=me", "password=s%26crt", "service=registry"] {
        assert!(form.split('&').any(|f| f == field), "{form}");
    }
    assert!(form.contains("scope=repository%3Aa%2Fb%3Apull%2Cpush+repository%3Ac%3Apull"), "{form}");
}

#[tokio::test]
async fn registries_without_post_are_asked_the_older_way() {
    for refusal in [StatusCode::NOT_FOUND, StatusCode::UNAUTHORIZED, StatusCode::METHOD_NOT_ALLOWED] {
        let (realm, seen) = token_service(move |method| match *method {
            Method::POST => (refusal, ""),
            _ => (StatusCode::OK, r#"{"token":"old"}"#),
        })
        .await;
        let token = fetch(known(&[(HOST, password("me", "secret"))]), HOST, realm).await.unwrap();
        assert_eq!((token.token.as_str(), token.expires_in, token.issued_at), ("old", 60, 0));
        let seen = seen.lock().unwrap().clone();
        let [_, (method, Some(authorization), query)] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((method, authorization.as_str()), (&Method::GET, "Basic bWU6c2VjcmV0"));
        assert_eq!(query.matches("scope=").count(), 2, "{query}");
    }
}

#[tokio::test]
async fn an_identity_token_is_a_refresh_token() {
    let (realm, seen) = token_service(|_| TOKEN).await;
    let credential = Credential { identity_token: Some("r1".into()), ..password("me", "unused") };
    fetch(known(&[(HOST, credential)]), HOST, realm).await.unwrap();
    let form = seen.lock().unwrap()[0].2.clone();
    assert!(form.contains("grant_type=refresh_token&refresh_token=r1") && !form.contains("unused"), "{form}");
}

#[tokio::test]
async fn without_a_credential_the_token_is_anonymous() {
    let (realm, seen) = token_service(|_| TOKEN).await;
    let other = known(&[("r.example", password("me", "secret"))]);
    fetch(other, HOST, realm).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    assert!(matches!(&seen[..], [(method, None, _)] if *method == Method::GET), "{seen:?}");
}

#[tokio::test]
async fn a_secret_goes_to_no_realm_in_the_clear() {
    let (realm, seen) = token_service(|_| TOKEN).await;
    let provider = known(&[("r.example", password("me", "secret"))]);
    let error = fetch(provider.clone(), "r.example", realm).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
    let error = fetch(provider, "r.example", "http://auth.example/token".into()).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_is_no_answer() {
    let (elsewhere, stolen) = token_service(|_| TOKEN).await;
    let (realm, _) =
        token_service(move |_| (StatusCode::TEMPORARY_REDIRECT, [("location", elsewhere.clone())])).await;
    let error = fetch(known(&[(HOST, password("me", "secret"))]), HOST, realm).await.unwrap_err();
    assert!(error.message().contains("307"), "{error}");
    assert!(stolen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn refusals_and_bad_answers_keep_their_kind_and_no_secret() {
    let big = format!(r#"{{"token":"{}"}}"#, "x".repeat(2 << 20));
    for (status, body, want) in [
        (StatusCode::FORBIDDEN, String::new(), Code::PermissionDenied),
        (StatusCode::UNAUTHORIZED, String::new(), Code::Unauthenticated),
        (StatusCode::BAD_GATEWAY, String::new(), Code::Unavailable),
        (StatusCode::OK, "{}".into(), Code::Unknown),
        (StatusCode::OK, "not json: s3cret".into(), Code::Unknown),
        (StatusCode::OK, big, Code::Unknown),
    ] {
        let (realm, _) = token_service(move |_| (status, body.clone())).await;
        let error = fetch(known(&[(HOST, password("me", "s3cret"))]), HOST, realm).await.unwrap_err();
        assert_eq!(error.code(), want, "{error}");
        assert!(!error.message().contains("s3cret"), "{error}");
    }
}
