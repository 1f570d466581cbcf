use super::*;
use millrace_log::fs::OsFs;
use proptest::prelude::*;

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn file(dir: &tempfile::TempDir) -> TokensFile {
    TokensFile::new(Arc::new(OsFs), dir.path().join("made/tokens.json"))
}

fn new(name: &str) -> NewToken {
    NewToken {
        name: name.to_owned(),
        tenant: "acme".parse().unwrap(),
        scopes: [Scope::Write, Scope::Read].into(),
        labels: Vec::new(),
        expires: None,
    }
}

/// The file that `docs/formats/tokens.md` shows.
fn golden() -> Vec<Token> {
    let hash = |digit: &str| SecretHash::from_hex(&digit.repeat(64)).unwrap();
    let first = Token {
        id: "5f3a9c01d2e4".parse().unwrap(),
        name: "grafana".to_owned(),
        tenant: "acme".parse().unwrap(),
        scopes: [Scope::Read].into(),
        labels: vec![("team".to_owned(), "pumps".to_owned())],
        created: NOW,
        expires: Some(TimestampMs(NOW.0 + 86_400_000)),
        revoked: None,
        replaces: None,
        hash: hash("a"),
    };
    let second = Token {
        id: "00ff00ff00ff".parse().unwrap(),
        name: "proxy".to_owned(),
        tenant: ForTenant::Header,
        scopes: [Scope::Write, Scope::Read].into(),
        labels: Vec::new(),
        created: NOW,
        expires: None,
        revoked: Some(TimestampMs(NOW.0 + 5)),
        replaces: Some("5f3a9c01d2e4".parse().unwrap()),
        hash: hash("0"),
    };
    vec![first, second]
}

#[test]
fn the_golden_file_is_written_and_read_byte_for_byte_and_stands_in_the_page() {
    let bytes = include_bytes!("../../testdata/tokens-v1.json");
    let text = String::from_utf8(encode(&golden())).unwrap();
    assert_eq!(text.as_bytes(), bytes, "{text}");
    let read = decode(bytes).unwrap();
    assert_eq!(format!("{read:?}"), format!("{:?}", golden()));
    assert_eq!(encode(&read), bytes);
    let page = include_str!("../../../docs/formats/tokens.md");
    assert!(page.contains(text.trim()), "the page lacks:\n{text}");
}

#[test]
fn what_is_no_file_of_tokens_is_named() {
    let good = String::from_utf8(encode(&golden())).unwrap();
    for (from, to, expect) in [
        ("millrace-tokens", "other", "no file of tokens"),
        ("\"version\": 1", "\"version\": 2", "version 2"),
        ("\"read\"", "\"root\"", "no scope"),
        ("5f3a9c01d2e4\"", "xyz\"", "hexadecimal"),
        ("\"acme\"", "\"../a\"", "tenant"),
        ("\"team\"", "\"__name__\"", "forced label"),
        (&"a".repeat(64), "aa", "sha256"),
        (
            "\"id\": \"00ff00ff00ff\"",
            "\"id\": \"5f3a9c01d2e4\"",
            "twice",
        ),
        ("\"name\"", "\"nome\"", "unknown field"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let reason = decode(bad.as_bytes()).unwrap_err();
        assert!(reason.contains(expect), "{from}: {reason}");
    }
}

#[test]
fn tokens_are_listed_in_the_order_of_their_making_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    assert!(file.list().unwrap().is_empty());
    let secrets: Vec<Secret> = ["a", "b"]
        .iter()
        .map(|name| file.create(new(name), NOW).unwrap())
        .collect();
    let listed = file.list().unwrap();
    let names: Vec<&str> = listed.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let text = std::fs::read_to_string(file.path()).unwrap();
    for secret in &secrets {
        assert!(!text.contains(secret.reveal()));
        assert!(text.contains(&secret.hash().to_hex()));
    }
}

#[test]
fn a_token_that_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    let label = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let twice = [label("a", "1"), label("a", "2")].concat();
    type Change = Box<dyn Fn(&mut NewToken)>;
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|t| t.name.clear()), "name"),
        (Box::new(|t| t.name = "a\nb".to_owned()), "name"),
        (Box::new(|t| t.scopes.clear()), "scope"),
        (Box::new(|t| t.expires = Some(NOW)), "expired already"),
        (
            Box::new(move |t| {
                t.labels = label("team", "x");
                t.scopes = [Scope::Read, Scope::Admin].into();
            }),
            "admin concerns all tenants",
        ),
        (
            Box::new(move |t| t.labels = label("1a", "x")),
            "forced label",
        ),
        (Box::new(move |t| t.labels = label("a", "")), "no value"),
        (Box::new(move |t| t.labels.clone_from(&twice)), "twice"),
    ];
    for (change, expect) in cases {
        let mut wanted = new("n");
        change(&mut wanted);
        let error = file.create(wanted, NOW).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
    assert!(file.list().unwrap().is_empty());
}

#[test]
fn a_token_that_is_gone_is_not_rotated_and_an_error_repeats_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    let secret = file.create(new("a"), NOW).unwrap();
    let error = file.revoke(secret.reveal(), NOW).unwrap_err().to_string();
    let hidden = &secret.reveal()[16..];
    assert!(!error.contains(hidden), "{error}");
    let id = secret.id().as_str();
    file.revoke(id, NOW).unwrap();
    file.revoke(id, TimestampMs(NOW.0 + 9)).unwrap();
    assert_eq!(file.list().unwrap()[0].revoked, Some(NOW));
    let error = file.rotate(id, Duration::ZERO, None, NOW).unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
}

#[test]
fn a_new_token_lives_as_long_as_the_one_that_it_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    let mut wanted = new("a");
    wanted.expires = Some(TimestampMs(NOW.0 + 10_000));
    let old = file.create(wanted, NOW).unwrap();
    let later = TimestampMs(NOW.0 + 9_000);
    let overlap = Duration::from_secs(3_600);
    file.rotate(old.id().as_str(), overlap, None, later)
        .unwrap();
    let listed = file.list().unwrap();
    // An overlap never makes the old one live longer.
    assert_eq!(listed[0].expires, Some(TimestampMs(NOW.0 + 10_000)));
    assert_eq!(listed[1].expires, Some(TimestampMs(NOW.0 + 19_000)));
    assert_eq!(listed[1].replaces.as_ref(), Some(old.id()));
}

#[test]
fn a_token_is_rotated_once_and_its_replacement_can_be_rotated_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    let mut wanted = new("a");
    wanted.expires = Some(TimestampMs(NOW.0 + 10_000));
    let first = file.create(wanted, NOW).unwrap();
    let (id, overlap) = (first.id().as_str(), Duration::from_secs(1));
    let before = std::fs::read(file.path()).unwrap();
    let none = Some(Duration::ZERO);
    let error = file.rotate(id, overlap, none, NOW).unwrap_err();
    assert!(error.to_string().contains("expired already"), "{error}");
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
    let second = file.rotate(id, overlap, None, NOW).unwrap();
    let error = file.rotate(id, overlap, None, NOW).unwrap_err().to_string();
    assert!(error.contains(second.id().as_str()), "{error}");
    file.rotate(second.id().as_str(), overlap, None, NOW)
        .unwrap();
    let ends = file
        .list()
        .unwrap()
        .into_iter()
        .map(|t| t.expires.unwrap().0 - NOW.0);
    assert_eq!(ends.collect::<Vec<_>>(), [1_000, 1_000, 10_000]);
}

#[test]
fn a_full_file_takes_no_token_more_and_each_of_its_tokens_can_be_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    let made = file.create(new("a"), NOW).unwrap();
    let mut one = file.list().unwrap();
    let (alone, both) = (
        encode(&one).len(),
        encode(&[one.clone(), one.clone()].concat()).len(),
    );
    let more = both - alone;
    one[0].labels = vec![("padding".to_owned(), String::new())];
    let full = usize::try_from(FULL_BYTES).unwrap();
    let padding = full - more - encode(&one).len();
    for (padding, fits) in [(padding + 1, false), (padding, true)] {
        one[0].labels[0].1 = "x".repeat(padding);
        std::fs::write(file.path(), encode(&one)).unwrap();
        assert_eq!(file.create(new("a"), NOW).is_ok(), fits);
        assert_eq!(file.list().unwrap().len(), 1 + usize::from(fits));
        let error = file.create(new("a"), NOW).unwrap_err().to_string();
        assert!(error.contains("full"), "{error}");
        file.revoke(made.id().as_str(), NOW).unwrap();
        assert_eq!(file.list().unwrap()[0].revoked, Some(NOW));
    }
    assert!(std::fs::metadata(file.path()).unwrap().len() > FULL_BYTES);
}

#[test]
fn tokens_that_are_long_gone_are_taken_out_by_the_next_change() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    let mut short = new("expired");
    short.expires = Some(TimestampMs(NOW.0 + 1));
    file.create(short, NOW).unwrap();
    let revoked = file.create(new("revoked"), NOW).unwrap();
    file.revoke(revoked.id().as_str(), TimestampMs(NOW.0 + 1))
        .unwrap();
    let names = |at: TimestampMs| {
        file.create(new("good"), at).unwrap();
        let tokens = file.list().unwrap();
        tokens.into_iter().map(|t| t.name).collect::<Vec<_>>()
    };
    let last = NOW.saturating_add(KEPT_GONE);
    assert_eq!(names(last), ["expired", "revoked", "good"]);
    assert_eq!(
        names(last.saturating_add(Duration::from_millis(2))),
        ["good", "good"]
    );
}

#[test]
fn changes_side_by_side_are_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let file = &file;
            scope.spawn(move || {
                for n in 0..5 {
                    file.create(new(&format!("{thread}-{n}")), NOW).unwrap();
                }
            });
        }
    });
    assert_eq!(file.list().unwrap().len(), 20);
}

proptest! {
    #[test]
    fn any_bytes_are_tokens_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn a_file_with_one_byte_changed_is_read_or_refused_and_never_panics(at in 0usize..900, by: u8) {
        let mut bytes = encode(&golden());
        let at = at % bytes.len();
        bytes[at] ^= by;
        if let Ok(tokens) = decode(&bytes) {
            let again = decode(&encode(&tokens)).unwrap();
            prop_assert_eq!(format!("{again:?}"), format!("{tokens:?}"));
        }
    }
}
