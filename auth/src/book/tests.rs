use super::*;
use crate::{NewToken, Scope};
use millrace_log::fs::OsFs;
use std::time::Duration;

const NOW: TimestampMs = TimestampMs(1_000_000);

fn new(tenant: &str, scopes: &[Scope]) -> NewToken {
    NewToken {
        name: "n".to_owned(),
        tenant: tenant.parse().unwrap(),
        scopes: scopes.iter().copied().collect(),
        labels: vec![("team".to_owned(), "a".to_owned())],
        expires: Some(TimestampMs(NOW.0 + 1_000)),
    }
}

#[test]
fn a_change_of_the_file_holds_after_the_next_reload() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.json");
    let book = TokenBook::open(Arc::new(OsFs), path).unwrap();
    assert!(book.is_empty() && !book.reload().unwrap());
    let file = book.file();
    let secret = file.create(new("acme", &[Scope::Read]), NOW).unwrap();
    assert_eq!(book.check(&secret, NOW).unwrap_err(), Denied::Unknown);
    assert!(book.reload().unwrap());
    assert!(!book.reload().unwrap());
    let who = book.check(&secret, NOW).unwrap();
    assert_eq!(who.token, *secret.id());
    assert_eq!(who.tenant(None, false).unwrap().as_str(), "acme");
    assert_eq!(who.labels, [("team".to_owned(), "a".to_owned())]);
    let end = TimestampMs(NOW.0 + 1_000);
    assert_eq!(book.check(&secret, end).unwrap_err(), Denied::Expired);
    file.revoke(secret.id().as_str(), NOW).unwrap();
    assert!(book.reload().unwrap());
    assert_eq!(book.check(&secret, NOW).unwrap_err(), Denied::Revoked);
}

#[test]
fn another_secret_under_the_same_id_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let book = TokenBook::open(Arc::new(OsFs), dir.path().join("t")).unwrap();
    let secret = book.file().create(new("a", &[Scope::Read]), NOW).unwrap();
    book.reload().unwrap();
    let text = secret.reveal();
    let last = if text.ends_with('0') { "1" } else { "0" };
    let other = Secret::parse(&format!("{}{last}", &text[..text.len() - 1])).unwrap();
    assert_eq!(other.id(), secret.id());
    assert_eq!(book.check(&other, NOW).unwrap_err(), Denied::Unknown);
}

#[test]
fn a_file_that_became_bad_or_went_leaves_the_old_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.json");
    let book = TokenBook::open(Arc::new(OsFs), path.clone()).unwrap();
    let secret = book.file().create(new("a", &[Scope::Read]), NOW).unwrap();
    book.reload().unwrap();
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert!(book.reload().is_err());
    assert!(book.check(&secret, NOW).is_ok());
    std::fs::remove_file(&path).unwrap();
    assert!(book.reload().is_err());
    assert!(book.check(&secret, NOW).is_ok());
    std::fs::write(&path, &good).unwrap();
    book.reload().unwrap();
    assert!(book.check(&secret, NOW).is_ok());
    std::fs::write(&path, "{}").unwrap();
    assert!(TokenBook::open(Arc::new(OsFs), path).is_err());
}

#[test]
fn the_header_names_the_tenant_only_where_it_is_trusted_and_the_token_lets_it() {
    let identity = |tenant: &str| Identity {
        token: "0123456789ab".parse().unwrap(),
        name: String::new(),
        tenant: tenant.parse().unwrap(),
        scopes: Scopes::new(),
        labels: Vec::new(),
    };
    let ask = |token: &str, header, trusted| {
        let tenant = identity(token).tenant(header, trusted);
        tenant.ok().map(|tenant| tenant.as_str().to_owned())
    };
    for (token, header, trusted, expect) in [
        ("a", None, false, Some("a")),
        ("a", Some("b"), false, Some("a")),
        ("a", Some("b"), true, None),
        ("a", Some("a"), true, Some("a")),
        ("*", Some("b"), true, Some("b")),
        ("*", Some("b"), false, None),
        ("*", None, true, None),
        ("*", Some("../b"), true, None),
    ] {
        let found = ask(token, header, trusted);
        assert_eq!(found.as_deref(), expect, "{token} {header:?} {trusted}");
    }
}

#[test]
fn a_rotated_token_and_the_new_one_are_both_good_for_the_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let book = TokenBook::open(Arc::new(OsFs), dir.path().join("t")).unwrap();
    let file = book.file();
    let mut wanted = new("a", &[Scope::Write]);
    wanted.expires = None;
    let old = file.create(wanted, NOW).unwrap();
    let overlap = Duration::from_millis(500);
    let new = file.rotate(old.id().as_str(), overlap, None, NOW).unwrap();
    book.reload().unwrap();
    let (during, after) = (TimestampMs(NOW.0 + 499), TimestampMs(NOW.0 + 500));
    assert!(book.check(&old, during).is_ok() && book.check(&new, during).is_ok());
    assert_eq!(book.check(&old, after).unwrap_err(), Denied::Expired);
    assert_eq!(
        book.check(&new, after).unwrap().scopes,
        [Scope::Write].into()
    );
}
