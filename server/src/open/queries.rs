//! What answers queries.

use std::sync::Arc;

use axum::Router;
use millrace_log::fs::Fs;
use millrace_query::api::{self, Api, ApiMetrics, Freshness};
use millrace_query::{Engine, SeriesSource};
use millrace_queue::QueueIdentity;
use millrace_scrape::Scraper;
use millrace_store::Store;
use tokio::runtime::Handle;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};

use crate::app::App;
use crate::config::Config;
use crate::edge::StoreEdge;
use crate::export::{self, Export};
use crate::failure::Failure;
use crate::source::{PartSource, StoreFreshness};
use crate::{companions, fleet, options};

/// What answers PromQL: the store of this process where it has all partitions, or else all stores
/// that there are.
///
/// # Errors
///
/// Stores that are to be found by a topic that cannot be used.
pub(super) fn router(
    app: &App,
    fs: &dyn Fs,
    config: &Config,
    store: Option<&Arc<Store>>,
    identity: Option<&QueueIdentity>,
    stores: &StoreEdge,
    scraper: Option<&Scraper>,
) -> Result<Router, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Data(error.to_string());
    let local = store.filter(|_| !config.queries_fleet());
    let (source, freshness, status): (Arc<dyn SeriesSource>, Arc<dyn Freshness>, Router) =
        match local {
            Some(store) => (
                Arc::new(PartSource(store.all())),
                Arc::new(StoreFreshness(store.clone())),
                Router::new(),
            ),
            None => {
                let directory = fleet::directory(app, fs, config, identity)?;
                let remote =
                    fleet::remote(config, directory, &app.registry, Handle::current(), stores)
                        .map_err(|error| failed(&error))?;
                (remote.source, remote.freshness, remote.router)
            }
        };
    let metrics = ApiMetrics::new(&app.registry).map_err(|error| failed(&error))?;
    let engine = Arc::new(Engine::new(source.clone(), options::engine(config)));
    let export = export::router(Export {
        source: source.clone(),
        engine: engine.clone(),
    });
    let query = api::router(Api {
        engine,
        source,
        clock: app.clock.clone(),
        freshness,
        companions: companions::of(local, config, &app.registry, scraper),
        options: options::api(config),
        metrics,
    });
    Ok(query.merge(export).merge(status).layer(compression()))
}

/// Answers are compressed as the client wishes, but for those that are compressed already.
fn compression() -> CompressionLayer<impl Predicate> {
    let chunks = NotForContentType::const_new("application/x-streamed-protobuf");
    CompressionLayer::new()
        .gzip(true)
        .zstd(true)
        .compress_when(DefaultPredicate::new().and(chunks))
}
