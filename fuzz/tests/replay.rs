//! The corpus, some mutations of it, the canary, and requests that are meant to cost much.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use millrace_fuzz::harness::{corpus, run};
use millrace_fuzz::targets::{canary, query_text, reply, request, targets};

#[test]
fn query_text_is_answered_or_refused() {
    run(
        query_text,
        &corpus("fuzz/corpus/query_text").unwrap(),
        5_000,
        1,
    )
    .unwrap_or_else(|f| panic!("{f}"));
}

#[test]
fn requests_are_answered_or_refused() {
    run(request, &corpus("fuzz/corpus/request").unwrap(), 3_000, 1)
        .unwrap_or_else(|f| panic!("{f}"));
}

#[test]
fn the_canary_is_found() {
    let inputs = corpus("fuzz/corpus/query_text").unwrap();
    let failure = run(canary, &inputs, 5_000, 1).expect_err("a mistake");
    assert!(failure.message.contains("planted"), "{failure}");
}

#[test]
fn bodies_of_every_format_and_encoding_are_decoded_or_refused() {
    for decoder in targets().iter().filter(|t| t.name.starts_with("decode_")) {
        let inputs = corpus(decoder.corpus).unwrap();
        assert!(inputs.len() >= 2, "{}: the corpus is lost", decoder.name);
        run(decoder.target, &inputs, 1_500, 1).unwrap_or_else(|f| panic!("{}: {f}", decoder.name));
    }
}

/// The harness reaches a mistake in a decoder too.
#[test]
fn every_canary_is_found() {
    let all = targets();
    let canaries: Vec<_> = all
        .iter()
        .filter(|t| t.name.starts_with("canary"))
        .collect();
    assert_eq!(canaries.len(), 2);
    for canary in canaries {
        let inputs = corpus(canary.corpus).unwrap();
        let failure = run(canary.target, &inputs, 5_000, 1).expect_err("a mistake");
        assert!(failure.message.contains("planted"), "{failure}");
    }
}

/// Asks for an expression at one moment, as a form.
fn ask(expression: &str) -> (u16, String) {
    let escaped: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
    let text = format!(
        "POST /api/v1/query\ncontent-type: application/x-www-form-urlencoded\n\ntime=400&query={escaped}"
    );
    let reply = reply(text.as_bytes()).expect("a request");
    (reply.status, String::from_utf8(reply.body).unwrap())
}

#[track_caller]
fn refused(expression: &str, why: &str) {
    let (status, text) = ask(expression);
    assert!((400..500).contains(&status), "{status} {text}");
    assert!(text.contains(why), "{text}");
}

#[test]
fn what_is_meant_to_cost_much_is_refused_by_its_bound() {
    let nested = |open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(200), close.repeat(200))
    };
    refused(&nested("(", "1", ")"), "nested more than 64 deep");
    refused(&nested("-", "1", ""), "deep");
    refused(&nested("abs(", "up", ")"), "nested more than 64 deep");
    refused(&vec!["1"; 2_000].join("+"), "more than 2000 tokens");
    refused(&vec!["up"; 2_100].join(" or "), "more than 2000 tokens");
    refused(&"x".repeat(17 << 10), "limit is 16384 bytes");
    refused("{a=~\"(b{1000}){1000}\"}", "compiles to more than");
    refused(
        &format!("{{a=~\"{}\"}}", "b".repeat(1_025)),
        "limit is 1024",
    );
    // Each of them small, all together not.
    let patterns = vec!["a=~\"(b{20}){20}\""; 300].join(",");
    refused(
        &format!("up{{{patterns}}}"),
        "more than 100 regular expressions",
    );
    let selectors = vec!["up{a=~\"(b{20}){20}\"}"; 101].join(" or ");
    refused(&selectors, "more than 100 regular expressions");
    refused("max_over_time(up[100y:1ms])", "too many samples");
    refused(
        "sum_over_time(sum_over_time(up[1y:1s])[1y:1s])",
        "too many samples",
    );
}

#[test]
fn a_range_of_too_many_steps_is_refused() {
    let text = "GET /api/v1/query_range?query=up&start=0&end=4000000000&step=1";
    let reply = reply(text.as_bytes()).expect("a request");
    let body = String::from_utf8(reply.body).unwrap();
    assert_eq!(reply.status, 400, "{body}");
    assert!(body.contains("exceeded maximum resolution"), "{body}");
}

#[test]
fn a_body_over_the_bound_is_refused() {
    let text = format!(
        "POST /api/v1/query\ncontent-type: application/x-www-form-urlencoded\n\nquery={}",
        "a".repeat(12 << 20)
    );
    let reply = reply(text.as_bytes()).expect("a request");
    assert!((400..500).contains(&reply.status), "{}", reply.status);
}
