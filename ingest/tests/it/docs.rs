//! `docs/ingest.md` says what the code does.

use millrace_ingest::Reason;

const PAGE: &str = include_str!("../../../docs/ingest.md");

#[test]
fn the_page_lists_every_reason_of_an_item_and_no_other() {
    let from = PAGE.find("| id | of an item |").unwrap();
    let to = PAGE.find("Of a whole request").unwrap();
    let rows = PAGE[from..to]
        .lines()
        .filter_map(|line| line.strip_prefix("| `"));
    let listed: Vec<_> = rows.map(|row| row.split('`').next().unwrap()).collect();
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.id()).collect();
    assert_eq!(listed, reasons);
}
