//! millrace: ingest.
