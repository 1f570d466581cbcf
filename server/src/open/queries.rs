//! What answers queries.

use std::sync::Arc;

use axum::Router;
use millrace_ingest::Ingest;
use millrace_log::fs::Fs;
use millrace_query::api::{self, Api, ApiMetrics, Freshness};
use millrace_query::{Engine, SeriesSource};
use millrace_queue::QueueIdentity;
use millrace_rules::RuleManager;
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
use crate::views::ViewSource;
use crate::{companions, fleet, options, rules};

/// The parts of this process beside queries.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) store: Option<&'a Arc<Store>>,
    pub(super) identity: Option<&'a QueueIdentity>,
    pub(super) stores: &'a StoreEdge,
    pub(super) scraper: Option<&'a Scraper>,
    pub(super) ingest: Option<&'a Ingest>,
}

/// What answers PromQL: the store of this process where it has all partitions, or else all stores
/// that there are; and what evaluates rules, where there are some.
///
/// # Errors
///
/// Stores that are to be found by a topic that cannot be used; rules with an error.
pub(super) fn router(
    app: &Arc<App>,
    fs: &Arc<dyn Fs>,
    config: &Config,
    around: &Around<'_>,
) -> Result<(Router, Option<RuleManager>), Failure> {
    let Around {
        store,
        identity,
        stores,
        scraper,
        ingest,
    } = *around;
    let failed = |error: &dyn std::fmt::Display| Failure::Data(error.to_string());
    let local = store.filter(|_| !config.queries_fleet());
    let (source, freshness, status): (Arc<dyn SeriesSource>, Arc<dyn Freshness>, Router) =
        match local {
            Some(store) => (
                Arc::new(ViewSource {
                    inner: Arc::new(PartSource(store.all())),
                    store: store.clone(),
                    clock: app.clock.clone(),
                }),
                Arc::new(StoreFreshness(store.clone())),
                Router::new(),
            ),
            None => {
                let directory = fleet::directory(app, &**fs, config, identity)?;
                let remote =
                    fleet::remote(config, directory, &app.registry, Handle::current(), stores)
                        .map_err(|error| failed(&error))?;
                (remote.source, remote.freshness, remote.router)
            }
        };
    let metrics = ApiMetrics::new(&app.registry).map_err(|error| failed(&error))?;
    let engine = Arc::new(Engine::new(source.clone(), options::engine(config)));
    let rules = match ingest {
        Some(ingest) => rules::start(app, fs, config, ingest, &engine, &source, &freshness)?,
        None => None,
    };
    let export = export::router(Export {
        source: source.clone(),
        engine: engine.clone(),
    });
    let query = api::router(Api {
        engine,
        source,
        clock: app.clock.clone(),
        freshness,
        companions: companions::of(local, config, &app.registry, scraper, rules.as_ref()),
        options: options::api(config),
        metrics,
    });
    let router = query.merge(export).merge(status).layer(compression());
    Ok((router, rules))
}

/// Answers are compressed as the client wishes, but for those that are compressed already.
fn compression() -> CompressionLayer<impl Predicate> {
    let chunks = NotForContentType::const_new("application/x-streamed-protobuf");
    CompressionLayer::new()
        .gzip(true)
        .zstd(true)
        .compress_when(DefaultPredicate::new().and(chunks))
}
