//! Queries.

use super::{Request, Row, Section, bare, get, post};

fn query(text: &str) -> Request {
    let text = text
        .replace('%', "%25")
        .replace('+', "%2B")
        .replace('&', "%26");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    post("/api/v1/query", &form, format!("query={text}"))
}

fn read_after(position: &str) -> Request {
    let mut request = bare("GET", "/api/v1/query?query=1");
    request
        .headers
        .push(("millrace-read-after", position.to_owned()));
    request
}

pub fn rows() -> Vec<Row> {
    let mut t = Section::new("Queries");
    t.row(
        "no expression",
        get("/api/v1/query"),
        400,
        &["bad_data", "query"],
    );
    let open = query("sum(up");
    t.row(
        "an expression that does not parse",
        open,
        400,
        &["bad_data", "parse error"],
    );
    let unknown = query("frobnicate(up)");
    t.row(
        "a function that there is not",
        unknown,
        400,
        &["bad_data", "frobnicate"],
    );
    let regex = query(r#"up{job=~"a("}"#);
    t.row(
        "a regular expression that does not parse",
        regex,
        400,
        &["bad_data", "unclosed group"],
    );
    t.row(
        "a selector that would match everything",
        query("{}"),
        400,
        &["bad_data", "non-empty matcher"],
    );
    let long = query(&format!("up{{a=\"{}\"}}", "x".repeat(17 << 10)));
    t.row(
        "longer than `query.max_query_bytes`",
        long,
        400,
        &["bad_data", "16384"],
    );
    let deep = query(&format!("{}1{}", "(".repeat(5000), ")".repeat(5000)));
    t.row(
        "nested too deeply",
        deep,
        400,
        &["bad_data", "more than 64 deep"],
    );
    let chain = query(&vec!["1"; 5000].join("+"));
    t.row(
        "a chain of too many terms",
        chain,
        400,
        &["bad_data", "2000 tokens"],
    );
    let both = query("{__name__=~\"bad_rw|bad_item\"} * on () bad_rw");
    t.row("many-to-many matching", both, 422, &["execution"]);

    let noon = get("/api/v1/query?query=up&time=noon");
    t.row("a time that is none", noon, 400, &["bad_data", "time"]);
    let range = |rest: &str| get(&format!("/api/v1/query_range?query=up&{rest}"));
    let backwards = range("start=10&end=5&step=1");
    t.row(
        "an end before the start",
        backwards,
        400,
        &["bad_data", "end"],
    );
    let still = range("start=1&end=5&step=0");
    t.row("a step of zero", still, 400, &["bad_data", "step"]);
    let fine = range("start=0&end=1000000&step=1");
    t.row(
        "more points than `query.max_steps`",
        fine,
        400,
        &["bad_data", "11,000"],
    );
    let series = get("/api/v1/series");
    t.row(
        "series without a selector",
        series,
        400,
        &["bad_data", "match[]"],
    );

    let says = ["Millrace-Read-After"];
    t.row(
        "a position that is none",
        read_after("nonsense"),
        400,
        &says,
    );
    let foreign = read_after(&format!("{:032x}/0:1", 7));
    t.row(
        "a position of another queue",
        foreign,
        400,
        &["Millrace-Read-After", "queue"],
    );
    t.1
}
