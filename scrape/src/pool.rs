//! The targets of one job, and their loops.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use millrace_ingest::TargetSeries;
use millrace_log::fs::Fs;
use millrace_model::SeriesId;
use millrace_relabel::LabelSet;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Discovery, Job, PromDuration};
use crate::discovery::{self, Group};
use crate::http::Client;
use crate::scrape_loop::{Elsewhere, Order, ScrapeLoop, Shared};
use crate::status::{DroppedTarget, Standing, TargetStatus};
use crate::target::{Populated, Target, populate};

/// The pool of one job. Discoveries hand it groups, and it starts and stops loops.
pub(crate) struct Pool {
    shared: Shared,
    fs: Arc<dyn Fs>,
    elsewhere: Elsewhere,
    state: Mutex<State>,
}

struct State {
    job: Arc<Job>,
    client: Client,
    sources: Vec<Source>,
    next_source: u64,
    loops: HashMap<u64, Running>,
    /// Loops that have been told to end, until they have.
    ending: Vec<Ending>,
    dropped: Vec<LabelSet>,
    dropped_count: usize,
    /// What the metrics have of this pool.
    counted: [usize; 2],
    forced_error: Arc<Mutex<Option<String>>>,
    closed: bool,
}

/// One discovery of the job, with what it has found.
struct Source {
    number: u64,
    discovery: Discovery,
    groups: Vec<Group>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Running {
    target: Arc<Target>,
    series: Arc<Mutex<TargetSeries>>,
    standing: Arc<Mutex<Standing>>,
    orders: watch::Sender<Order>,
    task: JoinHandle<()>,
}

impl Running {
    /// Tells the loop to end, which then owns what is known of its target.
    fn end(self, order: Order) -> Ending {
        let Self { orders, task, .. } = self;
        orders.send_replace(order);
        Ending { orders, task }
    }
}

/// A loop that ends.
struct Ending {
    orders: watch::Sender<Order>,
    task: JoinHandle<()>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("job", &self.state.lock().job.name())
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool without targets: [`begin`](Self::begin) looks for them.
    pub(crate) fn new(
        job: Arc<Job>,
        client: Client,
        shared: Shared,
        fs: Arc<dyn Fs>,
        elsewhere: Elsewhere,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            fs,
            elsewhere,
            state: Mutex::new(State {
                job,
                client,
                sources: Vec::new(),
                next_source: 0,
                loops: HashMap::new(),
                ending: Vec::new(),
                dropped: Vec::new(),
                dropped_count: 0,
                counted: [0; 2],
                forced_error: Arc::default(),
                closed: false,
            }),
        })
    }

    /// Starts the discoveries of the job.
    pub(crate) fn begin(self: &Arc<Self>) {
        let mut state = self.state.lock();
        self.discover(&mut state);
        self.sync(&mut state, &mut HashMap::new());
    }

    /// Starts discoveries; those that run already go on.
    fn discover(self: &Arc<Self>, state: &mut State) {
        let mut before = std::mem::take(&mut state.sources);
        for discovery in state.job.discoveries.clone() {
            let known = before
                .iter()
                .position(|source| source.discovery == discovery);
            if let Some(known) = known {
                state.sources.push(before.swap_remove(known));
                continue;
            }
            state.next_source += 1;
            let number = state.next_source;
            let (groups, task) = discovery::start(self, number, &discovery, self.fs.clone());
            state.sources.push(Source {
                number,
                discovery,
                groups,
                task,
            });
        }
    }

    /// What everything of this process shares.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Takes what a discovery has found instead of what it had found before.
    pub(crate) fn found(&self, source: u64, groups: Vec<Group>) {
        let mut state = self.state.lock();
        let known = state
            .sources
            .iter_mut()
            .find(|known| known.number == source);
        // One that a reload has ended may still have something to say.
        let Some(known) = known.filter(|known| known.groups != groups) else {
            return;
        };
        known.groups = groups;
        self.sync(&mut state, &mut HashMap::new());
    }

    /// Goes on with another configuration. Targets that are still there keep what is known of
    /// them.
    pub(crate) fn reconfigure(self: &Arc<Self>, job: Arc<Job>, client: Client) {
        let mut state = self.state.lock();
        let same_series = same_series(&state.job, &job);
        state.job = job;
        state.client = client;
        // Loops have their configuration from the start, so each gets a successor.
        let mut before = std::mem::take(&mut state.loops);
        for running in before.values().filter(|_| !same_series) {
            let options = running.target.options(&state.job, &self.shared.tenant);
            running.series.lock().reconfigure(options);
        }
        self.discover(&mut state);
        self.sync(&mut state, &mut before);
        for gone in before.into_values() {
            let successor = self.start(&state, gone.target.clone(), Some(&gone));
            state.ending.push(successor.end(Order::End));
            state.ending.push(gone.end(Order::Leave));
        }
    }

    /// Starts and stops loops, so that they are those of the targets that there are now. `before`
    /// are those that have been stopped to be gone on with.
    fn sync(&self, state: &mut State, before: &mut HashMap<u64, Running>) {
        if state.closed {
            return;
        }
        let mut targets = HashMap::new();
        let (mut dropped, mut dropped_count) = (Vec::new(), 0);
        let keep = match state.job.keep_dropped {
            0 => usize::MAX,
            keep => keep,
        };
        let groups = state.sources.iter().flat_map(|source| &source.groups);
        for found in groups.flat_map(Group::labels) {
            match populate(&found, &state.job) {
                Ok(Populated::Target(target)) => {
                    targets.insert(target.key, target);
                }
                Ok(Populated::Dropped(labels)) => {
                    dropped_count += 1;
                    if dropped.len() < keep {
                        dropped.push(labels);
                    }
                }
                Err(error) => {
                    self.shared.metrics.bad_targets.inc();
                    let (job, address) = (state.job.name(), found.get("__address__"));
                    tracing::error!(job, address, error, "a target cannot be scraped");
                }
            }
        }
        (state.dropped, state.dropped_count) = (dropped, dropped_count);
        let limit = state.job.target_limit;
        let count = targets.len();
        let over = (limit > 0 && count > limit)
            .then(|| format!("target_limit exceeded (number of targets: {count}, limit: {limit})"));
        *state.forced_error.lock() = over;
        let stays = |key: &u64, _: &mut Running| targets.remove(key).is_none();
        let gone: Vec<_> = state.loops.extract_if(stays).collect();
        state.ending.retain(|ending| !ending.task.is_finished());
        let ended = gone.into_iter().map(|(_, gone)| gone.end(Order::End));
        state.ending.extend(ended);
        for (key, target) in targets {
            let before = before.remove(&key);
            let running = self.start(state, Arc::from(target), before.as_ref());
            state.loops.insert(key, running);
            state
                .ending
                .extend(before.map(|before| before.end(Order::Leave)));
        }
        self.count(state);
    }

    /// Counts targets for the metrics, which are those of all pools.
    fn count(&self, state: &mut State) {
        let now = [state.loops.len(), state.dropped_count];
        for (state, now, before) in [
            ("active", now[0], state.counted[0]),
            ("dropped", now[1], state.counted[1]),
        ] {
            let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            let gauge = self.shared.metrics.targets.with_label_values(&[state]);
            gauge.add(signed(now) - signed(before));
        }
        state.counted = now;
    }

    /// Starts a loop, with what is known by the one before it.
    fn start(&self, state: &State, target: Arc<Target>, before: Option<&Running>) -> Running {
        let options = target.options(&state.job, &self.shared.tenant);
        let series = before.map(|before| before.series.clone());
        let series = series.unwrap_or_else(|| Arc::new(Mutex::new(TargetSeries::new(options))));
        let standing = before
            .map(|before| before.standing.clone())
            .unwrap_or_default();
        let (orders, receiver) = watch::channel(Order::Run);
        let scrape_loop = ScrapeLoop {
            shared: self.shared.clone(),
            job: state.job.clone(),
            client: state.client.clone(),
            target: target.clone(),
            series: series.clone(),
            standing: standing.clone(),
            forced_error: state.forced_error.clone(),
            orders: receiver,
            carried: before.is_some(),
            elsewhere: self.elsewhere.clone(),
        };
        Running {
            target,
            series,
            standing,
            orders,
            task: tokio::spawn(scrape_loop.run()),
        }
    }

    /// Stops everything: with markers if the job is gone, without if the process ends.
    pub(crate) fn close(&self, order: Order) {
        let mut state = self.state.lock();
        state.closed = true;
        state.sources.clear();
        if order == Order::Stop {
            for ending in &state.ending {
                ending.orders.send_replace(order);
            }
        }
        let loops = std::mem::take(&mut state.loops).into_values();
        state.ending.extend(loops.map(|running| running.end(order)));
        state.dropped_count = 0;
        self.count(&mut state);
    }

    /// Whether no loop runs any more.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.loops.is_empty()
            && state
                .ending
                .iter()
                .all(|running| running.task.is_finished())
    }

    /// Whether it scrapes as this job and this client say.
    pub(crate) fn is_as(&self, job: &Job, client: &Client) -> bool {
        let state = self.state.lock();
        state.job.same(job) && state.client.same_certificates(client)
    }

    pub(crate) fn job(&self) -> Arc<Job> {
        self.state.lock().job.clone()
    }

    /// Number of targets that are scraped, and that are dropped.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.loops.len(), state.dropped_count)
    }

    /// The targets that are scraped, in order of their URLs.
    pub(crate) fn active(&self) -> Vec<TargetStatus> {
        let state = self.state.lock();
        let mut active: Vec<_> = state
            .loops
            .values()
            .map(|running| describe(&state.job, running))
            .collect();
        active.sort_by(|a, b| (&a.url, &a.labels).cmp(&(&b.url, &b.labels)));
        active
    }

    /// The targets that the rules drop, as far as they are kept.
    pub(crate) fn dropped(&self) -> Vec<DroppedTarget> {
        let state = self.state.lock();
        let describe = |labels: &LabelSet| DroppedTarget {
            pool: state.job.name().to_owned(),
            discovered: owned(labels),
        };
        state.dropped.iter().map(describe).collect()
    }

    /// Adds the series of the targets that have the labels of this one, or of all if they are few.
    pub(crate) fn add_series(&self, like: &Target, all: bool, found: &mut HashSet<SeriesId>) {
        let state = self.state.lock();
        let wanted = |running: &&Running| all || running.target.labels == like.labels;
        for running in state.loops.values().filter(wanted) {
            found.extend(running.series.lock().series());
        }
    }
}

/// Whether the same exposition becomes the same series under both.
fn same_series(a: &Job, b: &Job) -> bool {
    a.yaml.honor_labels == b.yaml.honor_labels
        && a.yaml.honor_timestamps == b.yaml.honor_timestamps
        && a.yaml.track_timestamps_staleness == b.yaml.track_timestamps_staleness
        && a.yaml.metric_relabel_configs == b.yaml.metric_relabel_configs
        && a.limits == b.limits
        && a.extra_metrics == b.extra_metrics
}

fn describe(job: &Job, running: &Running) -> TargetStatus {
    let Standing {
        last_error,
        last_scrape,
        last_scrape_duration,
        health,
    } = running.standing.lock().clone();
    let target = &running.target;
    TargetStatus {
        pool: job.name().to_owned(),
        discovered: owned(&target.discovered),
        labels: owned(&target.labels),
        url: target.url.to_string(),
        last_error,
        last_scrape,
        last_scrape_duration,
        health,
        interval: PromDuration(target.interval).to_string(),
        timeout: PromDuration(target.timeout).to_string(),
        metadata: running.series.lock().metadata(),
    }
}

fn owned(labels: &LabelSet) -> BTreeMap<String, String> {
    labels
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
