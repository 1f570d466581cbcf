//! Every route of the real server and every kind of token. The routes come from the server itself
//! (`millrace config --routes`), which prints the table that its router is made of.

use std::collections::BTreeMap;
use std::path::Path;

use super::{bearer, create, until};
use crate::support::{Millrace, succeed};

struct Route {
    path: String,
    method: String,
    needs: String,
}

fn routes() -> Vec<Route> {
    let page = succeed(&["config", "--routes"]);
    let rows = page.lines().filter(|line| line.starts_with("| `/"));
    let cell = |line: &str, at: usize| {
        line.split(" | ")
            .nth(at)
            .unwrap()
            .trim_matches(['|', ' ', '`'])
            .to_owned()
    };
    let routes: Vec<Route> = rows
        .map(|line| {
            let methods = cell(line, 1);
            let method = methods.split([',', ';']).next().unwrap().to_owned();
            let path = cell(line, 0);
            let path = path.replace("{name}", "job").replace("{id}", "1");
            Route {
                path: path.replace("{*group}", "a"),
                method,
                needs: cell(line, 2).replace('`', ""),
            }
        })
        .collect();
    assert!(routes.len() > 60, "{page}");
    routes
}

#[test]
fn the_page_of_routes_is_current() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/routes.md");
    let found = std::fs::read_to_string(page).unwrap_or_default();
    assert!(
        found == succeed(&["config", "--routes"]),
        "docs/routes.md is not what the table says; write it again:\n  \
         cargo run -p millrace -- config --routes > docs/routes.md"
    );
}

#[test]
fn every_route_asks_every_kind_of_token_for_what_the_table_says() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let all = ["write", "read", "monitor", "admin", "fleet"];
    let mut tokens: BTreeMap<&str, String> = BTreeMap::new();
    for scope in all {
        tokens.insert(scope, create(dir, "a", &[scope], &[]));
    }
    tokens.insert("other tenant", create(dir, "b", &["read", "write"], &[]));
    let revoked = create(dir, "a", &all, &[]);
    super::token(dir, &["revoke", revoked.split('_').nth(1).unwrap()]);
    let expired = create(dir, "a", &all, &["--expires", "1ms"]);
    let forged = format!("{}{}", &revoked[..20], &expired[20..]);
    let garbage = [
        "nonsense".to_owned(),
        "mr_x_y".to_owned(),
        forged,
        revoked,
        expired,
    ];
    let server = Millrace::start(dir, &["auth.enabled=true"]);
    let client = server.client();
    until(&client, "/api/v1/labels", &tokens["read"], 200);
    for Route {
        path,
        method,
        needs,
    } in routes()
    {
        // A remote read or a cut-off stream must not hold the walk up.
        let ask = |header: Option<&str>| {
            let headers: Vec<_> = header.iter().map(|text| ("authorization", *text)).collect();
            let answer = client.send(&method, &path, &headers, Vec::new());
            answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
        };
        let open = needs == "nothing";
        let mut strangers = vec![ask(None)];
        strangers.extend(garbage.iter().map(|token| ask(Some(&bearer(token)))));
        for answer in strangers {
            assert_eq!(answer.status == 401, !open, "{method} {path}: {answer:?}");
            if !open {
                assert!(
                    answer.header("www-authenticate").starts_with("Bearer"),
                    "{answer:?}"
                );
                assert!(!answer.text.is_empty(), "{method} {path}");
            }
        }
        for (name, token) in &tokens {
            let has = |scope: &str| match *name {
                "other tenant" => ["read", "write"].contains(&scope),
                own => own == scope,
            };
            let may = match needs.as_str() {
                "nothing" | "any token" => true,
                needs => needs.split(" or ").any(has),
            };
            let answer = ask(Some(&bearer(token)));
            // What a handler itself says without a body or a parameter is none of this test's.
            let refused = answer.status == 401 || answer.text.contains("the token lacks the scope");
            assert_eq!(refused, !may, "{method} {path} {name}: {answer:?}");
            assert_ne!(answer.status, 401, "{method} {path} {name}: {answer:?}");
        }
    }
}

/// Each protocol's clients are told in their own shape.
#[test]
fn refusals_have_the_shape_that_each_protocols_clients_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &["auth.enabled=true"]);
    let client = server.client();
    let json = [("content-type", "application/json")];
    for (path, headers, expect) in [
        ("/api/v1/query", &[][..], r#""errorType":"unauthorized""#),
        ("/api/v1/write", &[], "a token is needed: "),
        ("/write", &[], r#"{"error":"a token is needed"#),
        (
            "/api/v2/write",
            &[],
            r#"{"code":"unauthorized","message":""#,
        ),
        ("/api/v3/write_lp", &[], r#"{"data":null,"error":""#),
        ("/v1/metrics", &json, r#"{"code":16,"message":""#),
        ("/api/v1/push", &json, r#"{"accepted":0,"error":""#),
        ("/metrics/job/x", &[], "a token is needed: "),
    ] {
        let answer = client.post(path, headers, "");
        assert_eq!(answer.status, 401, "{path}: {answer:?}");
        assert!(answer.text.contains(expect), "{path}: {answer:?}");
    }
}
