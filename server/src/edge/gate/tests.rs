use std::collections::BTreeSet;
use std::path::PathBuf;

use axum::routing::any;
use http_body_util::BodyExt as _;
use millrace_auth::{ForTenant, NewToken, Scope, Secret};
use millrace_log::SystemClock;
use millrace_log::fs::OsFs;
use millrace_model::{Clock, ManualClock, TimestampMs};
use prometheus::Registry;
use tokio::sync::Notify;

use super::*;
use crate::edge::table::Methods;
use crate::http::HttpMetrics;

/// A gate before handlers that say what they were let through with.
struct Fixture {
    dir: tempfile::TempDir,
    book: Arc<TokenBook>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let book = TokenBook::open(Arc::new(OsFs), path).unwrap();
        Self {
            dir,
            book: Arc::new(book),
        }
    }

    fn token(&self, tenant: &str, scopes: &[Scope], labels: &[(&str, &str)]) -> Secret {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let new = NewToken {
            name: "test".to_owned(),
            tenant: tenant.parse().unwrap(),
            scopes: scopes.iter().copied().collect(),
            labels: labels.iter().map(own).collect(),
            expires: None,
        };
        let secret = self.book.file().create(new, SystemClock.now()).unwrap();
        self.book.reload().unwrap();
        secret
    }

    fn audit(&self) -> PathBuf {
        self.dir.path().join("audit.jsonl")
    }

    /// The audit log, and its lines.
    fn noted(&self) -> (String, Vec<serde_json::Value>) {
        let text = std::fs::read_to_string(self.audit()).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines = lines.collect();
        (text, lines)
    }

    fn gate(&self, tokens: bool) -> Gate {
        let clock = Arc::new(SystemClock);
        let audit = AuditLog::new(Arc::new(OsFs), clock, self.audit());
        Gate {
            book: tokens.then(|| self.book.clone()),
            trust_tenant_header: false,
            admin: AdminPlace::Main,
            audit: Some(Arc::new(audit)),
            metrics: EdgeMetrics::new(&Registry::new()).unwrap(),
        }
    }
}

/// All routes of the table, each answering with the tenant and labels that it was given.
fn echo(gate: Gate) -> Router {
    let handler = |request: Request| async move {
        let extensions = request.extensions();
        let pushed = extensions.get::<PushContext>();
        let read = extensions.get::<ReadScope>();
        match (pushed, read) {
            (Some(push), Some(read)) => {
                assert_eq!(push.tenant, read.tenant);
                assert_eq!(push.forced_labels, *read.labels);
                format!("{} {:?}", read.tenant, read.labels)
            }
            (None, None) => "nobody".to_owned(),
            (Some(_), None) | (None, Some(_)) => "half".to_owned(),
        }
    };
    let mut inner = Router::new();
    for row in TABLE {
        inner = inner.route(row.path, any(handler));
    }
    behind(gate, inner.route("/not/in/the/table", any(handler)))
}

fn behind(gate: Gate, inner: Router) -> Router {
    behind_at(Arc::new(SystemClock), gate, inner)
}

fn behind_at(clock: Arc<dyn Clock>, gate: Gate, inner: Router) -> Router {
    let registry = Registry::new();
    let http = HttpMetrics::new(&registry).unwrap();
    let app = Arc::new(App::new(registry, http, clock));
    let inner = inner.layer(axum::middleware::from_fn(same_route));
    in_front(&app, gate, inner)
}

struct Reply {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

async fn ask(router: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    send(router, method, path, headers, Listener::Main, Body::empty()).await
}

async fn send(
    router: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    listener: Listener,
    body: Body,
) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(body).unwrap();
    let peer = Some("127.0.0.1:7".parse().unwrap());
    request.extensions_mut().insert(Origin { listener, peer });
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Reply {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

fn bearer(secret: &Secret) -> String {
    format!("Bearer {}", secret.reveal())
}

/// A path of a row, and a method that it takes.
fn example(row: &Row) -> (String, &'static str) {
    let path = row.path.replace("{name}", "job").replace("{id}", "1");
    let path = path.replace("{*group}", "a");
    let method = match row.methods {
        Methods::These(list) => list[0],
        Methods::All => "POST",
    };
    (path, method)
}

/// Every route and every kind of token: what is answered follows from the table alone.
#[tokio::test]
async fn every_route_lets_in_who_has_its_scope_and_nobody_else() {
    let fixture = Fixture::new();
    let alone = Scope::ALL.map(|scope| (scope, fixture.token("a", &[scope], &[])));
    let expired = NewToken {
        name: "old".to_owned(),
        tenant: ForTenant::One("a".parse().unwrap()),
        scopes: Scope::ALL.into(),
        labels: Vec::new(),
        expires: Some(TimestampMs(2)),
    };
    let expired = fixture.book.file().create(expired, TimestampMs(1)).unwrap();
    let revoked = fixture.token("a", &Scope::ALL, &[]);
    let id = revoked.id().as_str();
    fixture.book.file().revoke(id, SystemClock.now()).unwrap();
    fixture.book.reload().unwrap();
    let strangers = [
        None,
        Some("Bearer nonsense".to_owned()),
        Some("Basic YWRtaW46YWRtaW4=".to_owned()),
        Some(bearer(&Secret::generate().unwrap())),
        Some(bearer(&expired)),
        Some(bearer(&revoked)),
    ];
    let router = echo(fixture.gate(true));
    let mut seen = BTreeSet::new();
    for row in TABLE {
        let (path, method) = example(row);
        for stranger in &strangers {
            let headers: Vec<_> = stranger
                .iter()
                .map(|text| ("authorization", text.as_str()))
                .collect();
            let reply = ask(&router, method, &path, &headers).await;
            let expect = match row.need {
                Need::Open => 200,
                Need::Token
                | Need::Write
                | Need::Read
                | Need::Tenant
                | Need::Monitor
                | Need::Admin
                | Need::Fleet => 401,
            };
            assert_eq!(
                reply.status, expect,
                "{method} {path} {stranger:?}: {}",
                reply.text
            );
            assert_eq!(
                reply.headers.contains_key("www-authenticate"),
                expect == 401
            );
            let secret = expired.reveal().rsplit('_').next().unwrap();
            assert!(!reply.text.contains(secret), "{}", reply.text);
        }
        for (scope, token) in &alone {
            let expect = match row.need {
                Need::Open | Need::Token => 200,
                Need::Monitor if *scope == Scope::Admin => 200,
                Need::Tenant if [Scope::Write, Scope::Read].contains(scope) => 200,
                need if need.scope() == Some(*scope) => 200,
                Need::Write
                | Need::Read
                | Need::Tenant
                | Need::Monitor
                | Need::Admin
                | Need::Fleet => 403,
            };
            let reply = ask(&router, method, &path, &[("authorization", &bearer(token))]).await;
            assert_eq!(
                reply.status, expect,
                "{method} {path} {scope}: {}",
                reply.text
            );
            seen.insert((scope.as_str(), expect));
        }
    }
    assert_eq!(
        seen.len(),
        2 * Scope::ALL.len(),
        "each scope opens something, and not all"
    );
}

#[tokio::test]
async fn a_route_that_is_not_in_the_table_does_not_exist_even_behind_a_pattern_that_is() {
    let fixture = Fixture::new();
    let hidden = any(|| async { "hidden" });
    let inner = Router::new()
        .route("/api/v1/status/queries/{id}", hidden.clone())
        .route("/api/v1/status/queries/secrets", hidden.clone())
        .route("/-/secrets", hidden);
    let router = behind(fixture.gate(false), inner);
    let shown = ask(&router, "DELETE", "/api/v1/status/queries/1", &[]).await;
    assert_eq!(
        (shown.status, shown.text.as_str()),
        (StatusCode::OK, "hidden")
    );
    for path in ["/-/secrets", "/api/v1/status/queries/secrets"] {
        let reply = ask(&router, "DELETE", path, &[]).await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text);
    }
}

#[tokio::test]
async fn methods_that_are_not_in_the_table_reach_no_handler() {
    let router = echo(Fixture::new().gate(false));
    for row in TABLE {
        let Methods::These(list) = row.methods else {
            continue;
        };
        let (path, _) = example(row);
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "TRACE"] {
            let reply = ask(&router, method, &path, &[]).await;
            let expect = if list.contains(&method) { 200 } else { 405 };
            assert_eq!(reply.status, expect, "{method} {path}: {}", reply.text);
            if expect == 405 {
                assert_eq!(reply.headers["allow"], row.methods.names(), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn tenant_and_labels_come_from_the_token_and_from_nothing_else() {
    let fixture = Fixture::new();
    let scopes = [Scope::Write, Scope::Read];
    let token = bearer(&fixture.token("acme", &scopes, &[("team", "x")]));
    let router = echo(fixture.gate(true));
    let expect = r#"acme [("team", "x")]"#;
    for (method, path) in [
        ("POST", "/api/v1/write"),
        ("POST", "/metrics/job/a"),
        ("GET", "/api/v1/query"),
        ("GET", "/federate"),
        ("GET", "/api/v1/export"),
    ] {
        let headers = [
            ("authorization", token.as_str()),
            ("x-scope-orgid", "other"),
        ];
        let reply = ask(&router, method, path, &headers).await;
        assert_eq!(reply.text, expect, "{path}");
    }
    let influx = format!("/write?u=x&p={}", token.strip_prefix("Bearer ").unwrap());
    assert_eq!(ask(&router, "POST", &influx, &[]).await.text, expect);
    let elsewhere = influx.replace("/write", "/api/v1/push");
    assert_eq!(ask(&router, "POST", &elsewhere, &[]).await.status, 401);
}

#[tokio::test]
async fn the_header_names_the_tenant_only_if_the_configuration_says_so() {
    let fixture = Fixture::new();
    let headers = [("x-scope-orgid", "acme")];
    let mut gate = fixture.gate(false);
    let router = echo(fixture.gate(false));
    let reply = ask(&router, "GET", "/api/v1/query", &headers).await;
    assert_eq!(reply.text, "anonymous []");
    gate.trust_tenant_header = true;
    let router = echo(gate);
    let reply = ask(&router, "GET", "/api/v1/query", &headers).await;
    assert_eq!(reply.text, "acme []");
    let bad = [("x-scope-orgid", "a|b")];
    assert_eq!(ask(&router, "GET", "/api/v1/query", &bad).await.status, 400);
    let twice = [("x-scope-orgid", "acme"), ("x-scope-orgid", "other")];
    let reply = ask(&router, "GET", "/api/v1/query", &twice).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text.contains("twice"), "{}", reply.text);
    let mut gate = fixture.gate(true);
    gate.trust_tenant_header = true;
    let router = echo(gate);
    let proxy = bearer(&fixture.token("*", &[Scope::Read], &[]));
    let one = bearer(&fixture.token("one", &[Scope::Read], &[]));
    for (token, named, status, text) in [
        (&proxy, Some("acme"), 200, "acme []"),
        (&proxy, None, 403, "must name the tenant"),
        (&one, None, 200, "one []"),
        (&one, Some("acme"), 403, "another tenant"),
    ] {
        let mut headers = vec![("authorization", token.as_str())];
        headers.extend(named.map(|named| ("x-scope-orgid", named)));
        let reply = ask(&router, "GET", "/api/v1/query", &headers).await;
        assert_eq!(reply.status, status, "{named:?}");
        assert!(reply.text.contains(text), "{}", reply.text);
    }
}

#[tokio::test]
async fn administrative_routes_are_where_the_configuration_puts_them() {
    let fixture = Fixture::new();
    let (admin, data, both) = ("/api/v1/dlq", "/api/v1/query", "/metrics");
    for (place, listener, path, status) in [
        (AdminPlace::Main, Listener::Main, admin, 200),
        (AdminPlace::Nowhere, Listener::Main, admin, 404),
        (AdminPlace::Nowhere, Listener::Main, data, 200),
        (AdminPlace::Own, Listener::Main, admin, 404),
        (AdminPlace::Own, Listener::Main, data, 200),
        (AdminPlace::Own, Listener::Admin, admin, 200),
        (AdminPlace::Own, Listener::Admin, data, 404),
        (AdminPlace::Own, Listener::Admin, both, 200),
        (AdminPlace::Own, Listener::Main, both, 200),
    ] {
        let mut gate = fixture.gate(false);
        gate.admin = place;
        let reply = send(&echo(gate), "GET", path, &[], listener, Body::empty()).await;
        assert_eq!(reply.status, status, "{place:?} {listener:?} {path}");
    }
}

#[tokio::test]
async fn acts_are_noted_with_who_what_and_where_from_and_without_secrets() {
    let fixture = Fixture::new();
    let token = fixture.token("a", &[Scope::Admin], &[]);
    let other = fixture.token("a", &[Scope::Read], &[]);
    let router = echo(fixture.gate(true));
    let path = "/api/v1/admin/tsdb/delete_series?start=1&p=hunter2";
    let admin = bearer(&token);
    let form = "application/x-www-form-urlencoded";
    let headers = [("authorization", admin.as_str()), ("content-type", form)];
    let body = Body::from("match[]=up&token=canary");
    send(&router, "POST", path, &headers, Listener::Main, body).await;
    ask(&router, "POST", path, &[("authorization", &bearer(&other))]).await;
    ask(&router, "POST", path, &[("authorization", "Bearer x")]).await;
    ask(&router, "GET", path, &[("authorization", &admin)]).await;
    let (text, lines) = fixture.noted();
    assert_eq!(lines.len(), 2, "{text}");
    let parameters = "start=1&p=***&match[]=up&token=***";
    assert_eq!(lines[0]["detail"]["parameters"], parameters);
    assert_eq!(lines[0]["what"], "delete_series");
    assert_eq!(lines[0]["who"]["token"], token.id().as_str());
    assert_eq!(lines[0]["from"], "127.0.0.1:7");
    assert_eq!(lines[0]["outcome"], "done");
    assert_eq!(lines[1]["who"]["token"], other.id().as_str());
    assert_eq!(lines[1]["outcome"], "refused: 403");
    for secret in ["hunter2", "canary", token.reveal(), other.reveal()] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn browsers_may_ask_whether_they_may_ask() {
    let fixture = Fixture::new();
    let router = echo(fixture.gate(true));
    assert_eq!(
        ask(&router, "OPTIONS", "/api/v1/query", &[]).await.status,
        200
    );
    assert_eq!(
        ask(&router, "OPTIONS", "/api/v1/write", &[]).await.status,
        401
    );
    assert_eq!(ask(&router, "OPTIONS", "/metrics", &[]).await.status, 401);
}

const ACT: &str = "/api/v1/admin/tsdb/delete_series";

#[tokio::test]
async fn what_a_token_may_not_do_fills_no_disk() {
    let fixture = Fixture::new();
    let tokens = [1, 2].map(|_| fixture.token("a", &[Scope::Read], &[]));
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let inner = Router::new().route(ACT, any(|| async {}));
    let router = behind_at(clock.clone(), fixture.gate(true), inner);
    let path = format!("{ACT}?match[]={}", "ä".repeat(1 << 10));
    for expect in [20, 40] {
        for token in &tokens {
            for _ in 0..30 {
                let headers = [("authorization", &*bearer(token))];
                let uri = path.replace('ä', "%C3%A4");
                assert_eq!(ask(&router, "POST", &uri, &headers).await.status, 403);
            }
        }
        let (text, lines) = fixture.noted();
        assert_eq!(lines.len(), expect, "{text}");
        assert!(text.len() < expect * 1_500, "{}", text.len());
        clock.advance(std::time::Duration::from_secs(60));
    }
}

#[tokio::test]
async fn an_act_is_noted_though_whoever_asked_for_it_has_left() {
    let fixture = Fixture::new();
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, release) = (begun.clone(), release.clone());
        any(async move || {
            begun.notify_one();
            release.notified().await;
        })
    };
    let router = behind(fixture.gate(false), Router::new().route(ACT, handler));
    tokio::select! {
        _answered = ask(&router, "POST", ACT, &[]) => panic!("nobody lets it end"),
        () = begun.notified() => {}
    }
    release.notify_one();
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(5));
    let noted = async {
        while fixture.noted().1.is_empty() {
            looks.tick().await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, noted).await.unwrap();
    assert_eq!(fixture.noted().1[0]["outcome"], "done");
}

#[tokio::test]
async fn an_act_that_panics_or_cannot_be_read_is_noted_too() {
    async fn bug() {
        panic!("a bug in a handler")
    }
    let fixture = Fixture::new();
    let router = behind(fixture.gate(false), Router::new().route(ACT, any(bug)));
    let asked = {
        let router = router.clone();
        tokio::spawn(async move { ask(&router, "POST", ACT, &[]).await.status })
    };
    assert!(asked.await.unwrap_err().is_panic());
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = Body::from(vec![b'a'; MAX_FORM_BYTES + 1]);
    let reply = send(&router, "POST", ACT, &form, Listener::Main, body).await;
    assert_eq!(reply.status, 400);
    let outcomes = fixture.noted().1;
    let outcomes: Vec<_> = outcomes
        .iter()
        .map(|line| line["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["failed: 500", "refused: 400"]);
}
