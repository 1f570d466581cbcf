//! millrace: store.
