//! Opening the parts that the roles name, and closing them in the order in which a sample passes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Uri;
use millrace_ingest::Ingest;
use millrace_log::fs::Fs;
use millrace_model::{Offset, PartitionId};
use millrace_query::api::{self, Api, ApiMetrics, Freshness};
use millrace_query::{Engine, SeriesSource};
use millrace_queue::Appender;
use millrace_store::Store;
use tokio::runtime::Handle;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::app::{App, Parts, Stage};
use crate::config::Config;
use crate::export::{self, Export};
use crate::failure::Failure;
use crate::lag::LagWatch;
use crate::queue::{self, DurabilityMetrics, Queue};
use crate::snapshot::{self, Snapshots};
use crate::source::{PartSource, StoreFreshness};
use crate::{companions, fleet, options, records, retention, routes};

/// Between two tries to reach brokers that went away during the start.
const RETRY: Duration = Duration::from_secs(1);

/// Everything that has to be put in order at the end.
pub struct Opened {
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// The store, if this process has one.
    pub store: Option<Arc<Store>>,
    appender: Option<Appender>,
    /// Where the queue ended when it was opened, in the store's partitions.
    pub recovered: BTreeMap<PartitionId, Offset>,
}

/// Opens queue and store, starts the shards and hands what the roles serve to the routes. Blocks.
///
/// # Errors
///
/// What keeps a part from opening.
pub fn open(app: &App, fs: &Arc<dyn Fs>, config: &Config) -> Result<Opened, Failure> {
    let begun = app.clock.monotonic();
    let roles = config.top.roles;
    let metrics = |error: prometheus::Error| Failure::Data(format!("metrics: {error}"));

    app.enter(Stage::OpeningQueue, "");
    let queue = queue::open(app, fs, config)?;
    let durability =
        DurabilityMetrics::register(&app.registry, &queue.durability()).map_err(metrics)?;

    let mut recovered = BTreeMap::new();
    let store = if roles.store {
        let store = Arc::new(open_store(app, fs, config, &*queue)?);
        app.enter(Stage::CatchingUp, "");
        let owned = store.owned();
        let bounds = waiting(app, || queue.bounds(&owned));
        recovered = bounds.into_iter().map(|(p, b)| (p, b.end)).collect();
        // Each shard finds out for itself whether it may go on where it stands.
        let readers = owned.iter().map(|partition| queue.reader(*partition));
        store
            .start(readers.collect::<Result<_, _>>()?)
            .map_err(|error| Failure::Data(error.to_string()))?;
        Some(store)
    } else {
        None
    };

    let mut router = records::router(queue.records());
    let appender = if roles.ingest {
        let options = options::appender(config);
        let appender = Appender::new(queue.producer()?, options, &app.registry);
        let options = options::ingest(config);
        let ingest = Ingest::new(options, appender.clone(), app.clock.clone(), &app.registry);
        router = router.merge(ingest.router());
        Some(appender)
    } else {
        None
    };
    if let Some(store) = store.as_ref().filter(|_| queue.is_remote()) {
        let serving = fleet::serve(store, config, &app.registry).map_err(metrics)?;
        router = router.merge(serving);
    }
    if roles.query {
        router = router.merge(query_router(app, config, store.as_ref(), &*queue)?);
    }
    if let (Some(store), Some(appender)) = (&store, &appender) {
        let source = Arc::new(PartSource(store.all()));
        router = router.merge(admin::router(Admin {
            enabled: config.server.admin_api,
            store: store.clone(),
            appender: appender.clone(),
            engine: Arc::new(Engine::new(source, options::engine(config))),
            clock: app.clock.clone(),
            fs: fs.clone(),
            undo_window: config.store.delete_undo_window,
        }));
    }
    if let Some(store) = &store {
        router = router.merge(snapshot::router(Snapshots {
            enabled: config.server.admin_api,
            store: store.clone(),
            queue: queue.clone(),
            clock: app.clock.clone(),
            fs: fs.clone(),
            data_dir: config.top.data_dir.clone(),
        }));
    }
    let unknown = move |uri: Uri| async move { routes::unknown_path(roles, &uri) };
    app.install(Parts {
        router: router.fallback(unknown),
        store: store.clone(),
        lag: LagWatch::register(&app.registry, queue.is_remote()).map_err(metrics)?,
        durability,
        queue: queue.clone(),
        roles,
    });
    info!(
        seconds = app.clock.monotonic().saturating_sub(begun).as_secs_f64(),
        roles = roles.names().join(","),
        partitions = queue.identity().partitions,
        owned = store.as_ref().map_or(0, |store| store.owned().len()),
        queue = %queue.identity().id,
        "the parts are open"
    );
    Ok(Opened {
        queue,
        store,
        appender,
        recovered,
    })
}

fn open_store(
    app: &App,
    fs: &Arc<dyn Fs>,
    config: &Config,
    queue: &dyn Queue,
) -> Result<Store, Failure> {
    app.enter(Stage::RecoveringStore, "");
    let owned = options::owned(config, queue.identity().partitions);
    if owned.is_empty() {
        return Err(Failure::Refused(format!(
            "node {} of {} owns none of the queue's {} partitions; lower cluster.nodes, or take a \
             queue with more partitions",
            config.cluster.ordinal,
            config.cluster.nodes,
            queue.identity().partitions
        )));
    }
    let mut options = options::store(config);
    if let Some(path) = &config.retention.rules_file {
        options.retention.rules = retention::rules(&**fs, path).map_err(Failure::Refused)?;
    }
    Store::open_partitions(
        fs.clone(),
        app.clock.clone(),
        &config.top.data_dir.join("store"),
        options,
        queue.identity(),
        &owned,
        &app.registry,
    )
    .map_err(|error| Failure::Data(error.to_string()))
}

/// Tries until the queue tells.
fn waiting<T>(app: &App, mut ask: impl FnMut() -> Result<T, String>) -> T {
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => {
                warn!(error, "waiting for the queue");
                app.enter(Stage::CatchingUp, format!("{error}; asking again"));
                std::thread::park_timeout(RETRY);
            }
        }
    }
}

/// What answers PromQL: the store of this process where it has all partitions, or else all stores
/// that there are.
fn query_router(
    app: &App,
    config: &Config,
    store: Option<&Arc<Store>>,
    queue: &dyn Queue,
) -> Result<Router, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Data(error.to_string());
    let local = store.filter(|_| config.cluster.nodes == 1);
    let (source, freshness, status): (Arc<dyn SeriesSource>, Arc<dyn Freshness>, Router) =
        match local {
            Some(store) => (
                Arc::new(PartSource(store.all())),
                Arc::new(StoreFreshness(store.clone())),
                Router::new(),
            ),
            None => {
                let identity = queue.identity();
                let remote = fleet::remote(config, identity, &app.registry, Handle::current())
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
        companions: companions::of(local, config, &app.registry),
        options: options::api(config),
        metrics,
    });
    Ok(query.merge(export).merge(status).layer(compression()))
}

/// The way of a sample: nothing is acknowledged any more, then the queue has it, then the store
/// has synced what it applied.
///
/// # Errors
///
/// A store that could not sync, or had stopped before.
pub fn close(opened: &Opened) -> Result<(), Failure> {
    if let Some(appender) = &opened.appender {
        appender.close();
    }
    let closed = match &opened.store {
        Some(store) => store
            .close()
            .map_err(|error| Failure::Shutdown(error.to_string())),
        None => Ok(()),
    };
    opened.queue.close();
    closed
}

/// Answers are compressed as the client wishes, but for those that are compressed already.
fn compression() -> CompressionLayer<impl Predicate> {
    let chunks = NotForContentType::const_new("application/x-streamed-protobuf");
    CompressionLayer::new()
        .gzip(true)
        .zstd(true)
        .compress_when(DefaultPredicate::new().and(chunks))
}
