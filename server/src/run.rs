//! The life of the server: lock, listen, recover, serve, drain.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use millrace_log::SystemClock;
use millrace_log::fs::{Fs, OsFs};
use millrace_model::{Clock, Offset, PartitionId};
use millrace_store::Store;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::app::{App, Stage};
use crate::config::Config;
use crate::config::kind::QueueBackend;
use crate::edge::{self, StoreEdge, Watched};
use crate::failure::Failure;
use crate::http::{Drained, HttpLimits, HttpMetrics, Listener, Serving, serve};
use crate::lock::DirLock;
use crate::open::{close, open};
use crate::queue::Queue;
use crate::{banner, limits, logging, options, pipeline, process, reload, routes};

/// How often the lag is looked at while it is caught up.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(5);

/// How often it is looked for parts that have failed.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// How often the lag is measured for the metrics.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// How long a queue may be out of reach before the process is not ready: a leader change is no
/// reason.
const CUT_OFF_AFTER: Duration = Duration::from_secs(10);

/// How long a WebSocket gets to take its goodbye when the server stops.
const GOODBYE: Duration = Duration::from_secs(2);

/// How often it is looked again at what the queue's durability is made of.
const LOOK_AGAIN_INTERVAL: Duration = Duration::from_secs(60);

/// Connections of an address of its own for administrative routes.
const ADMIN_CONNECTIONS: usize = 64;

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
    // Without a store and an embedded queue nothing is kept here, so that needs no directory.
    let embedded = config.queue.backend == QueueBackend::Embedded;
    let keeps_data = config.top.roles.store || (embedded && config.needs_queue());
    let lock = keeps_data
        .then(|| DirLock::take(&fs, &config.top.data_dir, &holder(config, &*clock)))
        .transpose()?;
    let connections = process::connections_that_fit(config.server.max_connections);

    let (listener, address) = listen(config.top.listen)?;
    let admin = edge::own_admin_address(config).map(listen).transpose()?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(runtime_threads())
        .enable_all()
        .thread_name("http")
        .build()
        .map_err(|source| Failure::System {
            what: "the runtime's threads cannot be started",
            source,
        })?;
    let started = clock.now();
    let app = app(&fs, clock.clone(), started.0)?;
    let edge = edge::open(&fs, &clock, config, &app.registry)?;
    // On loopback nobody listens in.
    let admin_tls = edge.tls.clone().filter(|_| {
        let address = admin.as_ref().map(|(_, address)| address.ip());
        address.is_some_and(|address| !address.is_loopback())
    });
    crate::print(&format!(
        "{}\n",
        banner::text(&banner::Start {
            address,
            tls: edge.tls.is_some(),
            admin: admin
                .as_ref()
                .map(|(_, address)| (*address, admin_tls.is_some())),
            tokens: config.auth.enabled,
            roles: config.top.roles,
            data_dir: keeps_data.then_some(&*config.top.data_dir),
        })
    ))?;

    let mut limits = options::http(config);
    let shares = shares(connections, admin.is_some());
    limits.connections = shares.main;
    let reload = config.server.admin_api.then(|| edge.watched.clone());
    let serving = Serving {
        router: routes::router(&app, edge.gate, reload),
        limits,
        metrics: app.http.clone(),
        listener: Listener::Main,
        tls: edge.tls,
    };
    let mut listeners = vec![(listener, serving.clone())];
    if let Some((listener, _)) = admin {
        let serving = Serving {
            listener: Listener::Admin,
            tls: admin_tls,
            limits: HttpLimits {
                connections: shares.admin,
                ..limits
            },
            ..serving
        };
        listeners.push((listener, serving));
    }
    let begun = Begun {
        listeners,
        address,
        watched: edge.watched,
        stores: edge.stores,
    };
    let ended = runtime.block_on(life(begun, &app, &fs, config));
    // IMPORTANT: the lock goes last, so that no other process opens the files before they are
    // closed.
    drop(runtime);
    drop(lock);
    ended
}

/// How many connections each listener may have.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    main: usize,
    admin: usize,
}

/// All connections need files out of one number, so that an own address takes its part of them: a few, at most half.
fn shares(connections: usize, own_admin: bool) -> Shares {
    let admin = match own_admin {
        true => ADMIN_CONNECTIONS.min(connections / 2).max(1),
        false => 0,
    };
    let main = connections.saturating_sub(admin).max(1);
    Shares { main, admin }
}

/// A socket that listens, and where.
fn listen(address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), Failure> {
    let failed = |source| Failure::Listen { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// What stands before the parts are opened.
struct Begun {
    listeners: Vec<(std::net::TcpListener, Serving)>,
    address: SocketAddr,
    /// Files that may change.
    watched: Arc<Watched>,
    stores: StoreEdge,
}

/// The runtime only moves bytes, and its threads wake one another for each request: on few processors
/// that takes longer than a small query.
fn runtime_threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    processors.div_ceil(2)
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
    begun: Begun,
    app: &Arc<App>,
    fs: &Arc<dyn Fs>,
    config: &Config,
) -> Result<(), Failure> {
    let system = |source| Failure::System {
        what: "the network or the signals cannot be set up",
        source,
    };
    let mut signals = Signals::new().map_err(system)?;
    let address = begun.address;
    let (stop, stopped) = watch::channel(false);
    let grace = config.server.shutdown_timeout;
    let mut servers = Vec::new();
    for (listener, serving) in begun.listeners {
        let listener = TcpListener::from_std(listener).map_err(system)?;
        servers.push(tokio::spawn(serve(
            listener,
            serving,
            stopped.clone(),
            grace,
        )));
    }
    let looking = tokio::spawn(edge::watch(begun.watched.clone()));
    let hangups = signal(SignalKind::hangup()).map_err(system)?;
    let reloading = tokio::spawn(reload::on_hangup(app.clone(), begun.watched, hangups));

    let opening = {
        let (app, fs, config) = (app.clone(), fs.clone(), config.clone());
        let stores = begun.stores;
        tokio::task::spawn_blocking(move || open(&app, &fs, &config, address, &stores))
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
        let limits = opened.limits.lock().take();
        async move {
            // A failure ends the catching up. The rest goes on: how far a stopped shard falls
            // behind is what somebody wants to see then.
            let health = async {
                tokio::select! {
                    () = watch_for_failure(&app) => {}
                    () = async {
                        catch_up(&app, store.as_deref(), &recovered).await;
                        std::future::pending::<()>().await;
                    } => {}
                }
                stay_failed(&app).await;
            };
            tokio::select! {
                () = health => {}
                () = watch_queue(&app, queue) => {}
                () = watch_lag(&app) => {}
                () = watch_limits(limits) => {}
            }
        }
    });

    let name = signals.next().await;
    info!(
        signal = name,
        "stopping: requests in flight are answered first"
    );
    watching.abort();
    looking.abort();
    reloading.abort();
    app.enter(Stage::Stopping, "");
    // Nobody listens any more only if the server has ended already, which is told below.
    stop.send_replace(true);
    // A stream has no end of its own, so its reader is told that it ends.
    if let Some(live) = &opened.live {
        live.close();
    }
    tokio::spawn(async move {
        let name = signals.next().await;
        warn!(signal = name, "a second signal: ending at once");
        std::process::exit(130);
    });
    for server in servers {
        if let Drained::Cut(connections) = joined(server.await)? {
            warn!(
                connections,
                "requests in flight were cut at the end of the grace"
            );
        }
    }
    if let Some(live) = &opened.live {
        // WebSockets are no requests in flight any more.
        let left = live.drained(GOODBYE).await;
        if left > 0 {
            warn!(subscribers = left, "subscribers did not take their goodbye");
        }
    }
    let closing = tokio::task::spawn_blocking(move || close(&opened));
    joined(closing.await).and_then(|closed| closed)?;
    info!("stopped");
    Ok(())
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, Failure> {
    result.map_err(|error| Failure::Shutdown(format!("a task of the server panicked: {error}")))
}

/// Ready only once everything that was acknowledged before the start can be read: a client that was
/// told "stored" by the last process shall find it in this one.
async fn catch_up(app: &App, store: Option<&Store>, recovered: &BTreeMap<PartitionId, Offset>) {
    let behind = || -> u64 {
        let Some(store) = store else { return 0 };
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
/// it answers what it still can, and whoever watches it is told. A queue that cannot be read for a
/// while makes it not ready for that while.
async fn watch_for_failure(app: &App) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    let mut cut_off_since = None;
    loop {
        ticks.tick().await;
        let Some(parts) = app.parts() else { continue };
        let failures = pipeline::failures(parts, &app.registry);
        if !failures.is_empty() {
            let reason = failures.join("; ");
            error!(%reason, "part of the pipeline has failed; restart millrace once the cause is gone");
            return app.enter(Stage::Failed, reason);
        }
        let mut hindrances = pipeline::unreadable(parts);
        hindrances.extend(parts.lag.problem());
        let queue = parts.queue.as_ref();
        hindrances.extend(queue.and_then(|queue| queue.trouble()));
        let now = app.clock.monotonic();
        let hindered = app.stage().0 == Stage::Hindered;
        if hindrances.is_empty() {
            cut_off_since = None;
            if hindered {
                info!("the queue can be used again");
                app.enter(Stage::Ready, "");
            }
            continue;
        }
        let since = *cut_off_since.get_or_insert(now);
        let ready = app.stage().0 == Stage::Ready;
        if hindered || (ready && now.saturating_sub(since) >= CUT_OFF_AFTER) {
            let reason = hindrances.join("; ");
            if ready {
                warn!(%reason, "cut off from the queue; it is tried again and again");
            }
            app.enter(Stage::Hindered, reason);
        }
    }
}

/// Tells what else fails after the first failure. Ends only with its task.
async fn stay_failed(app: &App) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(parts) = app.parts() else { continue };
        let reason = pipeline::failures(parts, &app.registry).join("; ");
        if app.stage() != (Stage::Failed, reason.clone()) {
            error!(%reason, "more of the pipeline has failed");
            app.enter(Stage::Failed, reason);
        }
    }
}

/// Measures the lag for the metrics. Ends only with its task.
async fn watch_lag(app: &Arc<App>) {
    let mut ticks = tokio::time::interval(LAG_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let app = app.clone();
        let looking = tokio::task::spawn_blocking(move || {
            if let Some(parts) = app.parts() {
                let looked = pipeline::look(parts, app.clock.now());
                parts.lag.note_problem(looked.err());
            }
        });
        if let Err(error) = looking.await {
            error!(%error, "measuring the lag panicked");
        }
    }
}

/// Looks at the limits of single tenants, where there is a file of them. Ends only with its task.
async fn watch_limits(limits: Option<limits::Watch>) {
    if let Some(limits) = limits {
        limits.run().await;
    }
    std::future::pending().await
}

/// What has to be done for the queue now and then. Ends only with its task.
async fn watch_queue(app: &Arc<App>, queue: Option<Arc<dyn Queue>>) {
    let Some(queue) = queue else {
        return std::future::pending().await;
    };
    tokio::join!(retain(app, &queue), look_again(app, &queue));
}

/// Looks again at what durability is made of: somebody may change a topic while it is used.
async fn look_again(app: &Arc<App>, queue: &Arc<dyn Queue>) {
    if !queue.is_remote() {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(LOOK_AGAIN_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (app, queue) = (app.clone(), queue.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let looked = queue.look_again();
            if let Some(durability) = app.parts().and_then(|parts| parts.durability.as_ref()) {
                durability.note(&queue.durability());
            }
            looked
        });
        match looking.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the topic could not be looked at again"),
            Err(error) => error!(%error, "looking at the topic panicked"),
        }
    }
}

/// How often the queue's retention is enforced where no appends do it.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);

/// Lets the queue forget what it may, also while nobody pushes. Ends only with its task.
async fn retain(app: &App, queue: &Arc<dyn Queue>) {
    let mut ticks = tokio::time::interval(RETENTION_INTERVAL);
    loop {
        ticks.tick().await;
        let (queue, now) = (queue.clone(), app.clock.now());
        let removing = tokio::task::spawn_blocking(move || queue.retain(now));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_listeners_share_the_connections_that_there_are_files_for() {
        let of = |connections, own| {
            let Shares { main, admin } = shares(connections, own);
            (main, admin)
        };
        assert_eq!(of(4096, false), (4096, 0));
        assert_eq!(of(4096, true), (4032, 64));
        assert_eq!(of(16, true), (8, 8));
        assert_eq!(of(1, true), (1, 1));
    }
}
