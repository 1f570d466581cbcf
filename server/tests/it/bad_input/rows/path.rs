//! Paths and methods.

use super::{Row, Section, bare, get};

pub fn rows() -> Vec<Row> {
    let mut t = Section::new("Paths and methods");
    let says = ["no such path", "/nowhere"];
    t.row("a path that there is not", get("/nowhere"), 404, &says);
    let says = ["no such path", "/api/v1/nowhere"];
    t.row(
        "a path of the API that there is not",
        get("/api/v1/nowhere"),
        404,
        &says,
    );
    t.row(
        "reading where one writes",
        get("/api/v1/push"),
        405,
        &["POST"],
    );
    t.row("the same, line protocol", get("/write"), 405, &["POST"]);
    t.row(
        "writing where one reads",
        bare("PUT", "/api/v1/query"),
        405,
        &["PUT"],
    );
    t.row("deleting", bare("DELETE", "/metrics"), 405, &["DELETE"]);
    t.1
}
