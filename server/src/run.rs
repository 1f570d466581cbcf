//! The life of the server: lock, listen, recover, serve, drain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use chrono::DateTime;
use millrace_ingest::Ingest;
use millrace_log::SystemClock;
use millrace_log::fs::{Fs, OsFs};
use millrace_model::{Clock, Offset, PartitionId};
use millrace_query::Engine;
use millrace_query::api::{self, Api, ApiMetrics};
use millrace_queue::{Appender, EmbeddedQueue};
use millrace_store::Store;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use tracing::{error, info, warn};

use crate::app::{App, Parts, Stage};
use crate::config::Config;
use crate::failure::Failure;
use crate::http::{Drained, HttpMetrics, Serving, serve};
use crate::lock::DirLock;
use crate::pipeline::QueueEnds;
use crate::source::{StoreFreshness, StoreSource};
use crate::{banner, companions, logging, options, pipeline, process, records, routes};

/// How often the lag is looked at while it is caught up.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(5);

/// How often it is looked for parts that have failed.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Everything that has to be put in order at the end.
struct Opened {
    queue: EmbeddedQueue,
    store: Arc<Store>,
    appender: Appender,
    /// Where the queue ended when it was opened.
    recovered: BTreeMap<PartitionId, Offset>,
}

/// Starts everything and serves until SIGTERM or SIGINT.
///
/// # Errors
///
/// What keeps it from starting, or from ending in order.
pub fn run(config: &Config) -> Result<(), Failure> {
    logging::install(&config.log);
    for variable in config.ignored_variables() {
        warn!(
            variable,
            "this environment variable sets nothing that there is"
        );
    }
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let lock = DirLock::take(&fs, &config.top.data_dir, &holder(config, &*clock))?;
    let connections = process::connections_that_fit(config.server.max_connections);

    let listen = |source| Failure::Listen {
        address: config.top.listen,
        source,
    };
    let listener = std::net::TcpListener::bind(config.top.listen).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("http")
        .build()
        .map_err(|source| Failure::System {
            what: "the runtime's threads cannot be started",
            source,
        })?;
    crate::print(&format!(
        "{}\n",
        banner::text(address, &config.top.data_dir)
    ))?;

    let started = clock.now();
    let app = app(&fs, clock, started.0)?;
    let mut limits = options::http(config);
    limits.connections = connections;
    let serving = Serving {
        router: routes::router(&app),
        limits,
        metrics: app.http.clone(),
    };
    let ended = runtime.block_on(life(listener, serving, &app, &fs, config));
    // IMPORTANT: the lock goes last, so that no other process opens the files before they are
    // closed.
    drop(runtime);
    drop(lock);
    ended
}

fn holder(config: &Config, clock: &dyn Clock) -> String {
    let since = DateTime::from_timestamp_millis(clock.now().0).map_or_else(String::new, |time| {
        time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
    });
    format!(
        "pid {}, started {since}, listening on {}\n",
        std::process::id(),
        config.top.listen
    )
}

fn app(fs: &Arc<dyn Fs>, clock: Arc<dyn Clock>, started_ms: i64) -> Result<Arc<App>, Failure> {
    let registry = Registry::new();
    let registered = || -> Result<HttpMetrics, prometheus::Error> {
        registry.register(Box::new(process::ProcessCollector::new(
            fs.clone(),
            started_ms,
        )?))?;
        HttpMetrics::new(&registry)
    };
    let http = registered().map_err(|error| Failure::Data(format!("metrics: {error}")))?;
    Ok(Arc::new(App::new(registry, http, clock)))
}

async fn life(
    listener: std::net::TcpListener,
    serving: Serving,
    app: &Arc<App>,
    fs: &Arc<dyn Fs>,
    config: &Config,
) -> Result<(), Failure> {
    let system = |source| Failure::System {
        what: "the network or the signals cannot be set up",
        source,
    };
    let mut signals = Signals::new().map_err(system)?;
    let listener = TcpListener::from_std(listener).map_err(system)?;
    let (stop, stopped) = watch::channel(false);
    let grace = config.server.shutdown_timeout;
    let server = tokio::spawn(serve(listener, serving, stopped, grace));

    let opening = {
        let (app, fs, config) = (app.clone(), fs.clone(), config.clone());
        tokio::task::spawn_blocking(move || open(&app, &fs, &config))
    };
    tokio::pin!(opening);
    let opened = tokio::select! {
        opened = &mut opening => joined(opened).and_then(|opened| opened),
        name = signals.next() => {
            info!(signal = name, "stopping before the recovery has ended");
            // Recovery writes nothing that a kill could spoil, so nobody waits for it.
            std::process::exit(0);
        }
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            app.enter(Stage::Failed, failure.to_string());
            return Err(failure);
        }
    };
    let watching = tokio::spawn({
        let (app, store, recovered) = (app.clone(), opened.store.clone(), opened.recovered.clone());
        let queue = opened.queue.clone();
        async move {
            tokio::select! {
                () = watch_for_failure(&app) => {}
                () = retain(&app, &queue) => {}
                () = async {
                    catch_up(&app, &store, &recovered).await;
                    std::future::pending::<()>().await;
                } => {}
            }
        }
    });

    let name = signals.next().await;
    info!(
        signal = name,
        "stopping: requests in flight are answered first"
    );
    watching.abort();
    app.enter(Stage::Stopping, "");
    // Nobody listens any more only if the server has ended already, which is told below.
    stop.send_replace(true);
    tokio::spawn(async move {
        let name = signals.next().await;
        warn!(signal = name, "a second signal: ending at once");
        std::process::exit(130);
    });
    let drained = joined(server.await)?;
    if let Drained::Cut(connections) = drained {
        warn!(
            connections,
            "requests in flight were cut at the end of the grace"
        );
    }
    let closing = tokio::task::spawn_blocking(move || close(opened));
    joined(closing.await).and_then(|closed| closed)?;
    info!("stopped");
    Ok(())
}

/// Processors that this process may use.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, Failure> {
    result.map_err(|error| Failure::Shutdown(format!("a task of the server panicked: {error}")))
}

/// Opens queue and store, starts the shards and hands push and query to the routes. Blocks.
fn open(app: &App, fs: &Arc<dyn Fs>, config: &Config) -> Result<Opened, Failure> {
    let data = |error: &dyn std::fmt::Display| Failure::Data(error.to_string());
    let dir = &config.top.data_dir;
    let registry = &app.registry;
    let begun = app.clock.monotonic();

    app.enter(Stage::OpeningQueue, "");
    let queue_dir = dir.join("queue");
    let existing =
        EmbeddedQueue::stored_identity(&**fs, &queue_dir).map_err(|error| data(&error))?;
    let queue = EmbeddedQueue::open(
        fs.clone(),
        app.clock.clone(),
        &queue_dir,
        options::queue(
            config,
            existing.map(|identity| identity.partitions),
            processors(),
        ),
        registry,
    )
    .map_err(|error| data(&error))?;

    app.enter(Stage::RecoveringStore, "");
    let store_dir = dir.join("store");
    let store = Store::open(
        fs.clone(),
        app.clock.clone(),
        &store_dir,
        options::store(config),
        queue.identity(),
        registry,
    )
    .map_err(|error| data(&error))?;
    let store = Arc::new(store);

    app.enter(Stage::CatchingUp, "");
    // Each shard finds out for itself whether it may go on where it stands.
    let consumers = || -> Vec<_> {
        let partitions = (0..queue.identity().partitions).map(PartitionId);
        partitions
            .map(|partition| queue.reader(partition))
            .collect()
    };
    let ends = QueueEnds::new(consumers());
    let recovered = ends.read();
    store.start(consumers()).map_err(|error| data(&error))?;

    let appender = Appender::new(queue.producer(), options::appender(config), registry);
    let ingest = Ingest::new(
        options::ingest(config),
        appender.clone(),
        app.clock.clone(),
        registry,
    );
    let router =
        parts_router(app, config, &ingest, &store, &queue).map_err(|error| data(&error))?;
    app.install(Parts {
        router,
        store: store.clone(),
        ends,
    });
    info!(
        seconds = app.clock.monotonic().saturating_sub(begun).as_secs_f64(),
        partitions = queue.identity().partitions,
        queue = %queue.identity().id,
        "queue and store are open"
    );
    Ok(Opened {
        queue,
        store,
        appender,
        recovered,
    })
}

fn parts_router(
    app: &App,
    config: &Config,
    ingest: &Ingest,
    store: &Arc<Store>,
    queue: &EmbeddedQueue,
) -> Result<Router, prometheus::Error> {
    let source = Arc::new(StoreSource(store.clone()));
    let query = api::router(Api {
        engine: Arc::new(Engine::new(source.clone(), options::engine(config))),
        source,
        clock: app.clock.clone(),
        freshness: Arc::new(StoreFreshness(store.clone())),
        companions: companions::of_store(store, config, &app.registry),
        options: options::api(config),
        metrics: ApiMetrics::new(&app.registry)?,
    });
    Ok(Router::new()
        .merge(query.layer(compression()))
        .merge(ingest.router())
        .merge(records::router(Arc::new(queue.clone())))
        .fallback(routes::unknown_path))
}

/// Answers are compressed as the client wishes, but for those that are compressed already.
fn compression() -> CompressionLayer<impl Predicate> {
    let chunks = NotForContentType::const_new("application/x-streamed-protobuf");
    CompressionLayer::new()
        .gzip(true)
        .zstd(true)
        .compress_when(DefaultPredicate::new().and(chunks))
}

/// Ready only once everything that was acknowledged before the start can be read: a client that was
/// told "stored" by the last process shall find it in this one.
async fn catch_up(app: &App, store: &Store, recovered: &BTreeMap<PartitionId, Offset>) {
    let behind = || -> u64 {
        let applied = store.applied();
        let left = |(partition, end): (&PartitionId, &Offset)| {
            let applied = applied.next.get(partition).map_or(0, |applied| applied.0);
            end.0.saturating_sub(applied)
        };
        recovered.iter().map(left).sum()
    };
    let mut ticks = tokio::time::interval(CATCH_UP_INTERVAL);
    loop {
        ticks.tick().await;
        match behind() {
            0 => break,
            records => app.enter(Stage::CatchingUp, format!("{records} records behind")),
        }
    }
    app.enter(Stage::Ready, "");
    info!("ready");
}

/// A partition or shard that fails stays so until a restart, and the process is not ready any more:
/// it answers what it still can, and whoever watches it is told.
async fn watch_for_failure(app: &App) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    loop {
        ticks.tick().await;
        let failures = app
            .parts()
            .map(|parts| pipeline::failures(parts, &app.registry))
            .unwrap_or_default();
        if !failures.is_empty() {
            let reason = failures.join("; ");
            error!(%reason, "part of the pipeline has failed; restart millrace once the cause is gone");
            return app.enter(Stage::Failed, reason);
        }
    }
}

/// The way of a sample: nothing is acknowledged any more, then the queue has it, then the store
/// has synced what it applied.
fn close(opened: Opened) -> Result<(), Failure> {
    opened.appender.close();
    let closed = opened
        .store
        .close()
        .map_err(|error| Failure::Shutdown(error.to_string()));
    opened.queue.close();
    closed
}

/// How often the queue's retention is enforced where no appends do it.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);

/// Lets the queue forget what it may, also while nobody pushes. Ends only with its task.
async fn retain(app: &App, queue: &EmbeddedQueue) {
    let mut ticks = tokio::time::interval(RETENTION_INTERVAL);
    loop {
        ticks.tick().await;
        let (queue, now) = (queue.clone(), app.clock.now());
        let removing = tokio::task::spawn_blocking(move || queue.enforce_retention(now));
        match removing.await {
            Ok(Ok(())) => {}
            // The partition says so itself on `/-/ready`, if it can take no more appends.
            Ok(Err(error)) => error!(%error, "retention could not remove a segment of the queue"),
            Err(error) => error!(%error, "retention of the queue panicked"),
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one's name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
