//! The table. Its sections are those of the page.

mod json;
mod line;
mod path;
mod query;
mod remote_write;
mod size;

use super::Row;

const DAY_MS: i64 = 86_400_000;

/// All rows.
pub fn all() -> Vec<Row> {
    [
        json::rows(),
        line::rows(),
        remote_write::rows(),
        size::rows(),
        size::encodings(),
        query::rows(),
        path::rows(),
    ]
    .concat()
}

/// A request that is to be refused.
#[derive(Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn post(path: &str, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Request {
    Request {
        method: "POST",
        path: path.to_owned(),
        headers: headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect(),
        body: body.into(),
    }
}

fn get(path: &str) -> Request {
    bare("GET", path)
}

fn bare(method: &'static str, path: &str) -> Request {
    Request {
        method,
        path: path.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    }
}

/// One section of the table.
struct Section(&'static str, Vec<Row>);

impl Section {
    fn new(name: &'static str) -> Self {
        Self(name, Vec::new())
    }

    /// What is wrong, with which request, and the answer: its status and parts of its text.
    fn row(&mut self, name: &'static str, request: Request, status: u16, says: &[&str]) {
        self.1.push(Row {
            section: self.0,
            name,
            method: request.method,
            path: request.path,
            headers: request.headers,
            body: request.body,
            status,
            says: says.iter().map(|text| (*text).to_owned()).collect(),
            stored: Vec::new(),
        });
    }

    /// The last row's good items are stored: this query gives that value.
    fn stores(&mut self, query: &'static str, value: f64) {
        let row = self.1.last_mut().expect("a row was added");
        row.stored.push((query, value));
    }
}
