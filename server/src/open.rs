//! Opening the parts that the roles name, and closing them in the order in which a sample passes.

mod queries;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Uri;
use millrace_ingest::Ingest;
use millrace_live::Live;
use millrace_log::fs::Fs;
use millrace_model::{Offset, PartitionId};
use millrace_query::Engine;
use millrace_queue::Appender;
use millrace_rules::RuleManager;
use millrace_scrape::Scraper;
use millrace_store::{DeadLetterBox, Store};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::admin::{self, Admin};
#[cfg(feature = "kafka")]
use crate::announce::{self, Announced};
use crate::app::{App, Parts, Stage};
use crate::append::LazyProducer;
use crate::config::Config;
use crate::edge::{self, StoreEdge};
use crate::failure::Failure;
use crate::lag::LagWatch;
use crate::letters::rejected::Keeper;
use crate::letters::{self, Letters, LocalLetters, WithRejected};
use crate::queue::{self, DurabilityMetrics, Queue};
use crate::reload::Reloader;
use crate::snapshot::{self, Snapshots};
use crate::source::PartSource;
use crate::views::{ViewFile, Views};
use crate::{fleet, limits, live, options, records, replay, retention, routes, views};

/// Between two tries to reach brokers that went away during the start.
const RETRY: Duration = Duration::from_secs(1);

/// Everything that has to be put in order at the end.
pub struct Opened {
    /// The queue, where a part reads or writes it.
    pub queue: Option<Arc<dyn Queue>>,
    /// The store, if this process has one.
    pub store: Option<Arc<Store>>,
    appender: Option<Appender>,
    producer: Option<Arc<LazyProducer>>,
    /// The live feed of the store.
    pub live: Option<Live>,
    /// Limits of single tenants, to be looked at again and again.
    pub limits: Mutex<Option<limits::Watch>>,
    rejected: Option<DeadLetterBox>,
    #[cfg(feature = "kafka")]
    announced: Option<Announced>,
    scraper: Option<Scraper>,
    ingest: Option<Ingest>,
    rules: Option<RuleManager>,
    /// Where the queue ended when it was opened, in the store's partitions.
    pub recovered: BTreeMap<PartitionId, Offset>,
}

/// Opens what the roles need of queue and store, starts the shards and hands what the roles serve to
/// the routes. Blocks. `listening` is where others reach this process, `stores` how it speaks to stores.
///
/// # Errors
///
/// What keeps a part from opening.
pub fn open(
    app: &Arc<App>,
    fs: &Arc<dyn Fs>,
    config: &Config,
    listening: SocketAddr,
    stores: &StoreEdge,
) -> Result<Opened, Failure> {
    let begun = app.clock.monotonic();
    let roles = config.top.roles;
    let metrics = |error: prometheus::Error| Failure::Data(format!("metrics: {error}"));

    app.enter(Stage::OpeningQueue, "");
    let queue = match config.needs_queue() {
        true => Some(queue::open(app, fs, config)?),
        false => None,
    };
    let mut opened = Opened {
        queue: queue.clone(),
        store: None,
        appender: None,
        producer: None,
        live: None,
        limits: Mutex::new(None),
        rejected: None,
        #[cfg(feature = "kafka")]
        announced: None,
        scraper: None,
        ingest: None,
        rules: None,
        recovered: BTreeMap::new(),
    };
    let mut router = Router::new();
    let (mut durability, mut remote, mut reloader) = (None, false, None);
    if let Some(queue) = &queue {
        let report = queue.durability();
        durability = Some(DurabilityMetrics::register(&app.registry, &report).map_err(metrics)?);
        remote = queue.is_remote();
        router = router.merge(open_parts(
            app,
            fs,
            config,
            queue,
            &mut opened,
            &mut reloader,
        )?);
    }
    if roles.query {
        let around = queries::Around {
            store: opened.store.as_ref(),
            identity: queue.as_ref().map(|queue| queue.identity()),
            stores,
            scraper: opened.scraper.as_ref(),
            ingest: opened.ingest.as_ref(),
        };
        let (answering, rules) = queries::router(app, fs, config, &around)?;
        router = router.merge(answering);
        if let (Some(rules), Some(reloader)) = (&rules, &mut reloader) {
            reloader.add_rules(rules.clone());
        }
        opened.rules = rules;
    }
    let unknown = move |uri: Uri| async move { routes::unknown_path(roles, &uri) };
    app.install(Parts {
        router: router
            .fallback(unknown)
            .layer(axum::middleware::from_fn(edge::same_route)),
        store: opened.store.clone(),
        lag: LagWatch::register(&app.registry, remote).map_err(metrics)?,
        durability,
        queue: queue.clone(),
        roles,
        reloader,
    });
    #[cfg(feature = "kafka")]
    if let Some(store) = opened.store.as_ref().filter(|_| remote) {
        opened.announced = announce::start(app, &**fs, config, store, listening)?;
    }
    #[cfg(not(feature = "kafka"))]
    let _nobody_asks_where = listening;
    info!(
        seconds = app.clock.monotonic().saturating_sub(begun).as_secs_f64(),
        roles = roles.names().join(","),
        partitions = queue.as_ref().map(|queue| queue.identity().partitions),
        owned = opened.store.as_ref().map(|store| store.owned().len()),
        queue = queue.as_ref().map(|queue| queue.identity().id.to_string()),
        "the parts are open"
    );
    Ok(opened)
}

/// Opens the parts that read or write the queue, and returns what they serve.
fn open_parts(
    app: &App,
    fs: &Arc<dyn Fs>,
    config: &Config,
    queue: &Arc<dyn Queue>,
    opened: &mut Opened,
    reloader: &mut Option<Reloader>,
) -> Result<Router, Failure> {
    let roles = config.top.roles;
    let metrics = |error: prometheus::Error| Failure::Data(format!("metrics: {error}"));
    if roles.store {
        let store = Arc::new(open_store(app, fs, config, &**queue)?);
        app.enter(Stage::CatchingUp, "");
        let owned = store.owned();
        let bounds = waiting(app, || queue.bounds(&owned));
        opened.recovered = bounds.into_iter().map(|(p, b)| (p, b.end)).collect();
        // Each shard finds out for itself whether it may go on where it stands.
        let readers = owned.iter().map(|partition| queue.reader(*partition));
        store
            .start(readers.collect::<Result<_, _>>()?)
            .map_err(|error| Failure::Data(error.to_string()))?;
        queue.forward_letters(&store, app)?;
        opened.store = Some(store);
    }
    let mut router = records::router(queue.records());
    let producer = Arc::new(LazyProducer::new(queue.clone()));
    opened.producer = Some(producer.clone());
    if roles.ingest {
        let options = options::appender(config);
        let appender = Appender::new(producer.get()?, options, &app.registry);
        let options = options::ingest(config);
        let ingest = Ingest::new(options, appender.clone(), app.clock.clone(), &app.registry);
        router = router.merge(ingest.router());
        if let Some(bytes) = config.ingest.keep_rejected {
            let letters =
                letters::rejected::open(fs, &config.top.data_dir).map_err(Failure::Data)?;
            let keeper = Keeper::start(
                letters.clone(),
                queue.identity().id,
                app.clock.clone(),
                bytes.0,
                &app.registry,
            );
            ingest.keep_rejected(Arc::new(keeper.map_err(Failure::Data)?));
            opened.rejected = Some(letters);
        }
        router = router.merge(limits::router(limits::Status {
            admin: config.server.admin_api,
            ingest: ingest.clone(),
        }));
        if let Some(path) = &config.tenants.overrides_file {
            let defaults = options::ingest(config).limits;
            let memory = config.ingest.decode_memory_bytes;
            let file = limits::OverridesFile::new(fs.clone(), path.clone(), defaults, memory);
            let watch = limits::Watch::start(file, ingest.clone(), &app.registry);
            *opened.limits.lock() = Some(watch.map_err(Failure::Refused)?);
        }
        // IMPORTANT: last, since it begins to scrape, and what is scraped is under the limits.
        let started = Reloader::start(app, fs, config, &ingest)?;
        opened.ingest = Some(ingest);
        opened.scraper = started.scraper().cloned();
        *reloader = Some(started);
        opened.appender = Some(appender);
    }
    if let Some(store) = opened.store.as_ref().filter(|_| queue.is_remote()) {
        let serving = fleet::serve(store, config, &app.registry).map_err(metrics)?;
        router = router.merge(serving);
    }
    if let Some(store) = &opened.store {
        let source = Arc::new(PartSource(store.all()));
        let engine = Arc::new(Engine::new(source, options::engine(config)));
        if let Some(path) = &config.views.file {
            let file = ViewFile {
                path: path.clone(),
                fs: fs.clone(),
                store: store.clone(),
                engine: engine.clone(),
            };
            file.read().map_err(Failure::Refused)?;
            reloader.get_or_insert_default().watch_views(file);
        } else {
            // Those of a file that is no longer named.
            let dropped = store.views().replace_files(Vec::new());
            dropped.map_err(|error| Failure::Data(error.to_string()))?;
        }
        router = router.merge(views::router(Views {
            store: store.clone(),
            engine,
        }));
    }
    if let (Some(store), Some(appender)) = (&opened.store, &opened.appender) {
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
    if let Some(store) = &opened.store {
        router = router.merge(snapshot::router(Snapshots {
            enabled: config.server.admin_api,
            store: store.clone(),
            queue: queue.clone(),
            clock: app.clock.clone(),
            fs: fs.clone(),
            data_dir: config.top.data_dir.clone(),
        }));
    }
    if let Some(store) = &opened.store {
        let (live, routes) = live::open(app, config, store, &**queue)?;
        opened.live = Some(live);
        router = router.merge(routes);
    }
    let letters = letters_of(opened, &**queue);
    let store = opened.store.as_ref();
    Ok(router.merge(tending(app, config, (store, letters), queue, &producer)))
}

/// The letters that are looked after here: those of the queue, or of this process's own directories, and of
/// what it has refused.
fn letters_of(opened: &Opened, queue: &dyn Queue) -> Option<Arc<dyn Letters>> {
    if let Some(beside) = queue.letters() {
        return Some(match opened.rejected.clone() {
            Some(rejected) => Arc::new(WithRejected {
                queue: beside,
                rejected: LocalLetters(vec![rejected]),
            }),
            None => beside,
        });
    }
    let boxes = opened.store.iter().flat_map(|store| store.dead_letters());
    let boxes = boxes
        .map(|(_, letters)| letters)
        .chain(opened.rejected.clone());
    let boxes: Vec<DeadLetterBox> = boxes.collect();
    (!boxes.is_empty()).then(|| Arc::new(LocalLetters(boxes)) as Arc<dyn Letters>)
}

/// What looks after the queue's records by hand: dead letters, and replays into the store.
fn tending(
    app: &App,
    config: &Config,
    (store, letters): (Option<&Arc<Store>>, Option<Arc<dyn Letters>>),
    queue: &Arc<dyn Queue>,
    producer: &Arc<LazyProducer>,
) -> Router {
    let enabled = config.server.admin_api;
    let mut router = Router::new();
    if let Some(letters) = letters {
        router = router.merge(letters::http::router(letters::http::Endpoints {
            enabled,
            letters,
            producer: producer.clone(),
            clock: app.clock.clone(),
        }));
    }
    if let Some(store) = store {
        router = router.merge(replay::router(replay::Replayer {
            enabled,
            store: store.clone(),
            records: queue.records(),
            producer: producer.clone(),
            running: Mutex::new(()),
        }));
    }
    router
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

/// The way of a sample: nothing is acknowledged any more, then the queue has it, then the store
/// has synced what it applied.
///
/// # Errors
///
/// A store that could not sync, or had stopped before.
pub fn close(opened: &Opened) -> Result<(), Failure> {
    #[cfg(feature = "kafka")]
    if let Some(announced) = &opened.announced {
        announced.withdraw();
    }
    if let Some(rules) = &opened.rules {
        rules.stop();
    }
    if let Some(scraper) = &opened.scraper {
        Handle::current().block_on(scraper.stop());
    }
    if let Some(appender) = &opened.appender {
        appender.close();
    }
    if let Some(producer) = &opened.producer {
        producer.close();
    }
    let closed = match &opened.store {
        Some(store) => store
            .close()
            .map_err(|error| Failure::Shutdown(error.to_string())),
        None => Ok(()),
    };
    if let Some(queue) = &opened.queue {
        queue.close();
    }
    closed
}
