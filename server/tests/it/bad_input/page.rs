//! `docs/bad-input.md` from the table.

use std::fmt::Write as _;

use super::Row;

const INTRODUCTION: &str = "# Bad input and its answers

<!-- Made from server/tests/it/bad_input/rows/; a test walks the table and compares the page. -->

What a client does wrong is answered 4xx with the reason; the good items of the same request are
stored, and the answer says how many. A 4xx is never worth a retry of the same bytes. 5xx is: 503
comes with `Retry-After`, when the server is starting, stopping or overloaded. A connection that is
too slow is closed without an answer (`server.header_timeout`, `server.body_timeout`); what became of
its request is then unknown, and sending again is safe.

The limits are settings: see [configuration](configuration.md).
";

pub fn render(rows: &[Row]) -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut section = "";
    for row in rows {
        if row.section != section {
            section = row.section;
            write!(
                page,
                "\n## {section}\n\n| what is wrong | request | status | the answer says | \
                 stored all the same |\n|---|---|---|---|---|\n"
            )
            .unwrap();
        }
        let says: Vec<String> = row.says.iter().map(|text| code(text)).collect();
        let stored: Vec<String> = row.stored.iter().map(|(query, _)| code(query)).collect();
        writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            row.name.replace('|', "\\|"),
            code(&format!(
                "{} {}",
                row.method,
                row.path.split('?').next().unwrap()
            )),
            row.status,
            says.join(", "),
            stored.join(", "),
        )
        .unwrap();
    }
    page
}

fn code(text: &str) -> String {
    let text = text.replace('|', "\\|").replace('\n', " ");
    if text.contains('`') {
        format!("`` {text} ``")
    } else {
        format!("`{text}`")
    }
}
