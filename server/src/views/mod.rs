//! Materialized views at the edge: the API that defines them, the file that does, and how queries read
//! them. What a view is: `docs/views.md`.

mod file;
mod http;
mod source;

pub use self::http::{Views, router};
pub use file::ViewFile;
pub use source::ViewSource;
