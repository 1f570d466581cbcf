//! Every kind of bad input, as one table: the request, the status, what the answer says, and what
//! of it is stored all the same. `docs/bad-input.md` is the same table.

mod page;
mod rows;
mod slow;

use std::path::Path;

use crate::support::{Client, Millrace, vector};

/// One row of the table.
#[derive(Clone)]
pub struct Row {
    /// Which table of the page it stands in.
    pub section: &'static str,
    /// What is wrong, in words.
    pub name: &'static str,
    /// The request.
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// The answer.
    pub status: u16,
    /// Parts of the answer's body.
    pub says: Vec<String>,
    /// Queries, and the value that each must give: the good items of a partly bad request.
    pub stored: Vec<(&'static str, f64)>,
}

fn check(client: &Client, row: &Row) -> Result<(), String> {
    let headers: Vec<(&str, &str)> = row.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let answer = client
        .send(row.method, &row.path, &headers, row.body.clone())
        .map_err(|error| format!("no answer: {error}"))?;
    if answer.status != row.status {
        return Err(format!(
            "status {} in place of {}: {}",
            answer.status, row.status, answer.text
        ));
    }
    for fragment in &row.says {
        if !answer.text.contains(fragment.as_str()) {
            return Err(format!("does not say {fragment:?}: {}", answer.text));
        }
    }
    if row.status == 405 && !answer.headers.contains_key("allow") {
        return Err("405 without Allow".to_owned());
    }
    let Some(position) = answer.headers.get("millrace-position") else {
        let nothing_stored = row.stored.is_empty();
        return nothing_stored
            .then_some(())
            .ok_or_else(|| "nothing was stored".to_owned());
    };
    let position = position.to_str().expect("ASCII").to_owned();
    let fresh = [("millrace-read-after", position.as_str())];
    for (expression, expect) in &row.stored {
        let found = vector(&client.query_with(expression, None, &fresh));
        let values: Vec<f64> = found.values().copied().collect();
        if values != [*expect] {
            return Err(format!("{expression} gives {found:?} in place of {expect}"));
        }
    }
    Ok(())
}

#[test]
fn every_bad_input_gets_its_status_and_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &[]);
    let rows = rows::all();
    let failures: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let failure = check(&server.client(), row).err()?;
            Some(format!("{} / {}: {failure}", row.section, row.name))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        rows.len(),
        failures.join("\n")
    );
    assert!(rows.len() >= 50, "the table has lost rows: {}", rows.len());
    // None of it has hurt the server.
    assert_eq!(server.client().get("/-/ready").status, 200);
    let metrics = server.client().get("/metrics").text;
    assert!(
        metrics.contains("millrace_http_panics_total 0"),
        "a handler panicked"
    );
    let (status, stderr) = server.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn the_page_of_bad_inputs_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bad-input.md");
    let expect = page::render(&rows::all());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &expect).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expect,
        "docs/bad-input.md is not what the table says; write it again:\n  \
         BLESS=1 cargo test -p millrace --test it the_page_of_bad_inputs"
    );
}
