//! What one tenant wrote is seen by no other one, on no route, in no error and no list.

use super::{bearer, create};
use crate::support::{Answer, Client, Millrace, escape, now_ms};

const CANARY: &str = "canary7391";

/// Asks with a token.
struct As<'a> {
    client: &'a Client,
    token: String,
}

impl<'a> As<'a> {
    /// Two who ask the same server.
    fn two(client: &'a Client, one: String, other: String) -> (Self, Self) {
        let with = |token| Self { client, token };
        (with(one), with(other))
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let header = bearer(&self.token);
        let headers = [
            ("authorization", header.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let body = body.as_bytes().to_vec();
        self.client.send(method, path, &headers, body).unwrap()
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    /// Pushes a series with metadata, and waits until it can be read.
    fn push(&self, text: &str) {
        let header = bearer(&self.token);
        let headers = [
            ("authorization", header.as_str()),
            ("content-type", "text/plain"),
        ];
        let answer = self
            .client
            .post("/api/v1/import/prometheus", &headers, text);
        assert_eq!(answer.status, 204, "{answer:?}");
        let position = answer.header("millrace-position").to_owned();
        let headers = [
            ("authorization", header.as_str()),
            ("millrace-read-after", position.as_str()),
        ];
        let fresh = self
            .client
            .send("GET", "/api/v1/labels", &headers, Vec::new())
            .unwrap();
        assert_eq!(fresh.status, 200, "{fresh:?}");
    }
}

/// Its help, its label's value and its sample end with `7391"` wherever they are told, and no request says that.
fn canary() -> String {
    format!(
        "# HELP {CANARY}_total help {CANARY}\n# TYPE {CANARY}_total counter\n\
         {CANARY}_total{{{CANARY}_label=\"{CANARY}_value7391\"}} 7391 {}\n",
        now_ms()
    )
}

/// Everything by which data are read.
fn reads() -> Vec<(&'static str, String, String)> {
    let all = escape("{__name__=~\".+\"}");
    let get = |path: &str| ("GET", path.to_owned(), String::new());
    let post = |path: &str, form: String| ("POST", path.to_owned(), form);
    let window = format!(
        "start={}&end={}&step=60",
        now_ms() / 1000 - 600,
        now_ms() / 1000 + 600
    );
    vec![
        get(&format!("/api/v1/query?query={all}")),
        post(
            "/api/v1/query",
            format!("query={all}&explain=true&stats=all"),
        ),
        get(&format!("/api/v1/query_range?query={all}&{window}")),
        post(
            "/api/v1/query",
            format!(
                "query={}",
                escape("absent(nothing) or count({__name__=~\".+\"})")
            ),
        ),
        post("/api/v1/query", "query=1%2B".to_owned()),
        get(&format!("/api/v1/series?match[]={all}")),
        get("/api/v1/labels"),
        get("/api/v1/label/__name__/values"),
        get(&format!("/api/v1/label/{CANARY}_label/values")),
        get("/api/v1/metadata"),
        get(&format!("/api/v1/metadata?metric={CANARY}_total")),
        get(&format!("/federate?match[]={all}")),
        get(&format!("/api/v1/export?match[]={all}")),
        get(&format!("/api/v1/export?match[]={all}&format=csv")),
        get("/api/v1/status/tsdb"),
        get("/api/v1/status/limits"),
        get("/api/v1/status/queries"),
        get("/api/v1/status/queries/slow"),
        get("/api/v1/query_exemplars?query=up&start=0&end=1"),
        get("/api/v1/rules"),
        get("/api/v1/alerts"),
        get("/api/v1/notifications"),
        get("/api/v1/status/buildinfo"),
        get("/version"),
    ]
}

#[test]
fn no_read_of_another_tenant_shows_the_canary() {
    let dir = tempfile::tempdir().unwrap();
    let scopes = ["read", "write"];
    let (a, b) = (
        create(dir.path(), "a", &scopes, &[]),
        create(dir.path(), "b", &scopes, &[]),
    );
    // Every query is slow, so that the list of slow ones is not empty.
    let server = Millrace::start(
        dir.path(),
        &["auth.enabled=true", "query.slow_log_threshold=0s"],
    );
    let client = server.client();
    let (a, b) = As::two(&client, a, b);
    a.push(&canary());
    b.push(&format!("own{{who=\"b\"}} 1 {}\n", now_ms()));
    let mut shown = 0;
    for (method, path, form) in reads() {
        let own = a.send(method, &path, &form);
        shown += usize::from(own.text.contains(CANARY));
        let other = b.send(method, &path, &form);
        let asked_for = path.contains(CANARY) || form.contains(CANARY);
        assert!(
            asked_for || !other.text.contains(CANARY),
            "{method} {path}: {other:?}"
        );
        assert!(!other.text.contains("7391\""), "{method} {path}: {other:?}");
    }
    assert!(
        shown >= 14,
        "the canary sings for its owner on {shown} reads only"
    );
    // Its owner's queries name it; nobody else sees them.
    a.get(&format!("/api/v1/query?query={CANARY}_total"));
    assert!(a.get("/api/v1/status/queries/slow").text.contains(CANARY));
    assert!(!b.get("/api/v1/status/queries/slow").text.contains(CANARY));
    // Remote read is protobuf.
    reads_remotely(&a, true);
    reads_remotely(&b, false);
}

fn reads_remotely(who: &As<'_>, sees: bool) {
    let header = bearer(&who.token);
    let headers = [
        ("authorization", header.as_str()),
        ("content-encoding", "snappy"),
    ];
    let answer = who
        .client
        .post("/api/v1/read", &headers, remote_read(CANARY));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.text.contains(CANARY), sees, "{answer:?}");
}

/// A `ReadRequest` of all metrics whose names begin so. Snappy leaves a name as text where it comes first.
fn remote_read(canary: &str) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).expect("short")];
        out.extend_from_slice(bytes);
        out
    };
    let matcher = [
        vec![0x08, 2],
        field(2, b"__name__"),
        field(3, format!("{canary}.*").as_bytes()),
    ]
    .concat();
    let mut query = vec![0x08, 0, 0x10];
    let mut end = u64::try_from(now_ms() + 600_000).expect("after 1970");
    while end >= 0x80 {
        query.push((end & 0x7f) as u8 | 0x80);
        end >>= 7;
    }
    query.push(end as u8);
    query.extend(field(3, &matcher));
    let request = field(1, &query);
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}

#[test]
fn a_token_with_forced_labels_writes_and_reads_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let scopes = ["read", "write"];
    let whole = create(dir.path(), "a", &scopes, &[]);
    let bound = create(dir.path(), "a", &scopes, &["--label", "team=x"]);
    let server = Millrace::start(
        dir.path(),
        &["auth.enabled=true", "query.slow_log_threshold=0s"],
    );
    let client = server.client();
    let (whole, bound) = As::two(&client, whole, bound);
    whole.push(&canary());
    bound.push(&format!("own{{team=\"y\"}} 1 {}\n", now_ms()));
    let series = whole.get("/api/v1/series?match[]=own").json();
    assert_eq!(series["data"][0]["team"], "x", "{series}");
    for (method, path, form) in reads() {
        let answer = bound.send(method, &path, &form);
        let asked_for = path.contains(CANARY) || form.contains(CANARY);
        assert!(
            asked_for || !answer.text.contains(CANARY),
            "{method} {path}: {answer:?}"
        );
        assert!(
            !answer.text.contains("7391\""),
            "{method} {path}: {answer:?}"
        );
    }
    whole.get(&format!("/api/v1/query?query={CANARY}_total"));
    assert!(
        !bound
            .get("/api/v1/status/queries/slow")
            .text
            .contains(CANARY)
    );
    reads_remotely(&whole, true);
    reads_remotely(&bound, false);
    let around = escape("{__name__=~\".+\",team=~\"|x\"} or {__name__=~\".+\",team=\"\"}");
    let answer = bound.get(&format!("/api/v1/query?query={around}")).json();
    let found = answer["data"]["result"].as_array().unwrap();
    assert_eq!(found.len(), 1, "{answer}");
    assert_eq!(found[0]["metric"]["__name__"], "own");
}

#[test]
fn a_delete_takes_only_the_data_of_its_tokens_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let all = ["read", "write", "admin"];
    let (a, b) = (
        create(dir.path(), "a", &all, &[]),
        create(dir.path(), "b", &all, &[]),
    );
    let server = Millrace::start(dir.path(), &["auth.enabled=true", "server.admin_api=true"]);
    let client = server.client();
    let (a, b) = As::two(&client, a, b);
    a.push(&format!("shared 1 {}\n", now_ms()));
    b.push(&format!("shared 1 {}\n", now_ms()));
    let deleted = b.send("POST", "/api/v1/admin/tsdb/delete_series", "match[]=shared");
    assert_eq!(deleted.status, 204, "{deleted:?}");
    let count = |who: &As<'_>| {
        who.get("/api/v1/series?match[]=shared").json()["data"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!((count(&a), count(&b)), (1, 0));
    let id = deleted.header("millrace-delete-id").to_owned();
    assert!(!a.get("/api/v1/admin/tsdb/deletes").text.contains(&id));
    let undone = a.send("POST", "/api/v1/admin/tsdb/undelete", &format!("id={id}"));
    assert_eq!(undone.status, 404, "{undone:?}");
    let undone = b.send("POST", "/api/v1/admin/tsdb/undelete", &format!("id={id}"));
    assert_eq!(undone.status, 204, "{undone:?}");
    assert_eq!(count(&b), 1);
    let audit = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    for act in ["delete_series", "undelete"] {
        assert!(audit.contains(&format!("\"what\":\"{act}\"")), "{audit}");
    }
}
