//! Fuzz targets for what strangers send: bodies of every format and encoding that is pushed, query text, and
//! whole requests to the API.
//!
//! A target is a function of bytes that panics where a rule is broken. The [harness] feeds it the
//! corpus, and mutations of it that a seed decides, so that a run can be repeated anywhere: no
//! special compiler, no sanitizer. What a target counts is work (samples read), never time, so that
//! a slow machine changes nothing.
//!
//! - `cargo test -p millrace-fuzz` replays the corpus and some thousand mutations of it, and proves
//!   by a target that must fail that the harness finds what it should.
//! - `cargo run --release -p millrace-fuzz -- query_text 1000000 7` goes on.
//! - An input that failed belongs into its target's corpus (here in `corpus/`, for formats of bodies in
//!   `ingest/tests/corpus/`, where the tests of ingest replay it too) once the mistake is mended.

pub mod decoders;
pub mod harness;
pub mod mutate;
pub mod source;
pub mod targets;
