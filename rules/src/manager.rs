//! All groups, and when each is evaluated.
//!
//! Worker threads take the group that is due longest. A group's moments are a whole number of its intervals
//! apart, and begin where its file and name say ([`Group::slot`]), so that they are spread, and the same after
//! a restart. A group that takes longer than its interval misses moments, which are counted.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_model::{Labels, TimestampMs};
use parking_lot::{Condvar, Mutex};
use prometheus::Registry;

use crate::RulesError;
use crate::config::{Files, GlobalConfig, RulesConfig};
use crate::group::{Group, Groups, interval_ns};
use crate::metrics::Metrics;
use crate::notify::{Notifier, Transport};
use crate::world::{RulesOptions, RulesWorld, Shared};

/// Expressions nest up to the engine's bound on depth, and evaluation recurses with them.
const STACK_BYTES: usize = 8 << 20;

/// Workers look at the clock at least so often: it may jump.
const LOOK: Duration = Duration::from_secs(1);

/// How often it is looked whether rules may begin.
const READY_LOOK: Duration = Duration::from_millis(100);

/// Where rules are written.
#[derive(Clone, Debug)]
pub struct RuleFiles {
    /// Prometheus's configuration file, of which `global`, `rule_files` and `alerting` are used.
    pub config_file: Option<PathBuf>,
    /// Further rule files: paths, and patterns in their last part.
    pub patterns: Vec<String>,
    /// What holds where nothing else is said.
    pub defaults: GlobalConfig,
}

/// Evaluates rules. Cloning gives another handle.
#[derive(Clone)]
pub struct RuleManager {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Shared,
    files: Arc<dyn Files>,
    places: RuleFiles,
    schedule: Mutex<Schedule>,
    wake: Condvar,
    /// One reload at a time.
    reloading: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Schedule {
    groups: Groups,
    due: BTreeMap<String, Due>,
    /// Groups that are no more, until their markers are written.
    ending: Vec<Ending>,
    /// Whether rules have been read before: later ones have nothing to restore.
    loaded: bool,
    closed: bool,
}

#[derive(Clone, Copy, Default)]
struct Due {
    /// The moment of the last evaluation, in ns.
    last: Option<i64>,
    /// The next one.
    next: i64,
    running: bool,
}

struct Ending {
    group: Arc<Group>,
    /// When it went.
    at: TimestampMs,
    /// When its markers are written, in ns.
    due: i64,
}

enum Job {
    Evaluate(Arc<Group>, TimestampMs),
    End(Ending, Vec<Arc<Group>>),
}

impl fmt::Debug for RuleManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.inner.schedule.lock().groups.len();
        f.debug_struct("RuleManager")
            .field("groups", &groups)
            .finish_non_exhaustive()
    }
}

impl RuleManager {
    /// Reads the rules and begins to evaluate them. Reads files.
    ///
    /// # Errors
    ///
    /// Rules with an error, or a registry that has the metrics of another manager.
    ///
    /// # Panics
    ///
    /// If the operating system gives no threads.
    pub fn start(
        places: RuleFiles,
        options: RulesOptions,
        world: RulesWorld,
        files: Arc<dyn Files>,
        transport: Arc<dyn Transport>,
        registry: &Registry,
    ) -> Result<Self, RulesError> {
        let metrics = Metrics::new(registry)?;
        let notifier = Notifier::new(
            transport,
            files.clone(),
            world.clock.clone(),
            metrics.clone(),
            options.notification_capacity,
        );
        let threads = options.threads.max(1);
        let inner = Arc::new(Inner {
            shared: Shared {
                world,
                options,
                metrics,
                notifier: notifier.clone(),
                cancel: millrace_query::CancelFlag::default(),
            },
            files,
            places,
            schedule: Mutex::default(),
            wake: Condvar::new(),
            reloading: Mutex::default(),
            threads: Mutex::default(),
        });
        let manager = Self { inner };
        manager.reload()?;
        let start = |name: String, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name)
                .stack_size(STACK_BYTES)
                .spawn(work)
                .expect("the system starts a few threads")
        };
        let mut started = Vec::new();
        for number in 0..threads {
            let inner = manager.inner.clone();
            started.push(start(
                format!("rules-{number}"),
                Box::new(move || inner.work()),
            ));
        }
        started.push(start(
            "rules-notify".to_owned(),
            Box::new(move || notifier.run()),
        ));
        *manager.inner.threads.lock() = started;
        Ok(manager)
    }

    /// Reads the rules again. Groups that it does not change go on as they are; others go on with the state
    /// of their alerts. Reads files, and waits for groups that are being evaluated.
    ///
    /// # Errors
    ///
    /// Rules with an error. Those before go on.
    pub fn reload(&self) -> Result<(), RulesError> {
        let _one_at_a_time = self.inner.reloading.lock();
        let inner = &self.inner;
        let places = &inner.places;
        let read = RulesConfig::read(
            &*inner.files,
            places.config_file.as_deref(),
            &places.patterns,
            &places.defaults,
            &inner.shared.world.engine,
        );
        inner
            .shared
            .metrics
            .reload_successful
            .set(i64::from(read.is_ok()));
        inner.apply(read?);
        Ok(())
    }

    /// The configuration file, if rules are read from one.
    #[must_use]
    pub fn config_file(&self) -> Option<&Path> {
        self.inner.places.config_file.as_deref()
    }

    /// The groups, in order of file and name.
    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        let mut groups: Vec<_> = self
            .inner
            .schedule
            .lock()
            .groups
            .values()
            .cloned()
            .collect();
        groups.sort_by(|a, b| (&a.spec.file, &a.spec.name).cmp(&(&b.spec.file, &b.spec.name)));
        groups
    }

    /// URLs of the Alertmanagers that alerts are sent to, and of those that relabelling drops.
    #[must_use]
    pub fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        self.inner.shared.notifier.alertmanagers()
    }

    /// Ends all evaluations and returns when their results are stored. Alerts that wait are tried once more.
    pub fn stop(&self) {
        self.inner.shared.cancel.cancel();
        self.inner.schedule.lock().closed = true;
        self.inner.wake.notify_all();
        self.inner.shared.notifier.close();
        for thread in self.inner.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the rules panicked");
            }
        }
    }
}

impl Inner {
    fn now_ns(&self) -> i64 {
        self.shared.world.clock.now().0.saturating_mul(1_000_000)
    }

    fn apply(&self, config: RulesConfig) {
        let external = config.global.external_labels;
        self.shared.notifier.configure(&config.alerting, &external);
        let (before, loaded) = {
            let schedule = self.schedule.lock();
            (schedule.groups.clone(), schedule.loaded)
        };
        let (mut groups, mut changed) = (Groups::new(), Vec::new());
        for spec in config.groups {
            let key = format!("{};{}", spec.file.display(), spec.name);
            let known = before.get(&key);
            let group = match known {
                Some(known) if known.same(&spec, &external) => known.clone(),
                _ => {
                    changed.push(key.clone());
                    // Waits until an evaluation of the one before has ended.
                    let before = known.map(|known| &**known);
                    Arc::new(Group::new(spec, external.clone(), before, loaded))
                }
            };
            groups.insert(key, group);
        }
        let now = self.shared.world.clock.now();
        let now_ns = self.now_ns();
        let gone: Vec<_> = before
            .iter()
            .filter(|(key, _)| !groups.contains_key(*key))
            .collect();
        let metrics = &self.shared.metrics;
        for (key, _) in &gone {
            metrics.forget(key);
        }
        for (key, group) in &groups {
            let of = &[key.as_str()];
            metrics
                .interval
                .with_label_values(of)
                .set(group.spec.interval.as_secs_f64());
            let rules = i64::try_from(group.rules.len()).unwrap_or(i64::MAX);
            metrics.rules.with_label_values(of).set(rules);
        }
        tracing::info!(
            groups = groups.len(),
            changed = changed.len(),
            gone = gone.len(),
            "the rules are in use"
        );
        let mut schedule = self.schedule.lock();
        for (_, group) in gone {
            // Whatever has the same series under another name gets the time to write it.
            let due = now_ns.saturating_add(interval_ns(group.spec.interval).saturating_mul(2));
            let group = group.clone();
            schedule.ending.push(Ending {
                group,
                at: now,
                due,
            });
        }
        for key in &changed {
            let group = &groups[key];
            let next = group
                .slot(now_ns)
                .saturating_add(interval_ns(group.spec.interval));
            let due = schedule.due.entry(key.clone()).or_default();
            // One that is being evaluated ends without a result: its group is no more.
            *due = Due {
                last: due.last,
                next,
                running: false,
            };
        }
        schedule.due.retain(|key, _| groups.contains_key(key));
        schedule.groups = groups;
        schedule.loaded = true;
        drop(schedule);
        self.wake.notify_all();
    }

    /// Evaluates what is due until the end.
    fn work(&self) {
        let mut schedule = self.schedule.lock();
        loop {
            if schedule.closed {
                return;
            }
            if !self.shared.world.sink.is_ready() {
                self.postpone(&mut schedule);
                self.wake.wait_for(&mut schedule, READY_LOOK);
                continue;
            }
            let now = self.now_ns();
            let Some(job) = self.next(&mut schedule, now) else {
                let next = schedule
                    .due
                    .values()
                    .filter(|due| !due.running)
                    .map(|due| due.next);
                let wait = next
                    .chain(schedule.ending.iter().map(|ending| ending.due))
                    .min();
                let wait = wait.map_or(i64::MAX, |next| next.saturating_sub(now));
                let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(0));
                self.wake.wait_for(&mut schedule, wait.min(LOOK));
                continue;
            };
            drop(schedule);
            let key = match &job {
                Job::Evaluate(group, ts) => {
                    group.evaluate(&self.shared, *ts);
                    Some(group.clone())
                }
                Job::End(ending, others) => {
                    // Those in the middle of an evaluation are waited for.
                    let elsewhere: HashSet<Labels> =
                        others.iter().flat_map(|group| group.series()).collect();
                    ending.group.end(&self.shared, ending.at, &elsewhere);
                    None
                }
            };
            schedule = self.schedule.lock();
            if let Some(group) = key {
                let current = schedule.groups.get(&group.key);
                let same = current.is_some_and(|current| Arc::ptr_eq(current, &group));
                if let Some(due) = schedule.due.get_mut(&group.key).filter(|_| same) {
                    due.running = false;
                }
            }
        }
    }

    /// While the store catches up, moments pass without being missed.
    fn postpone(&self, schedule: &mut Schedule) {
        let now = self.now_ns();
        let Schedule { groups, due, .. } = schedule;
        for (key, due) in due.iter_mut().filter(|(_, due)| due.next <= now) {
            if let Some(group) = groups.get(key) {
                due.next = group
                    .slot(now)
                    .saturating_add(interval_ns(group.spec.interval));
            }
        }
    }

    fn next(&self, schedule: &mut Schedule, now: i64) -> Option<Job> {
        if let Some(at) = schedule.ending.iter().position(|ending| ending.due <= now) {
            let ending = schedule.ending.swap_remove(at);
            let tenant = &ending.group.spec.tenant;
            let groups = schedule.groups.values();
            let others = groups
                .filter(|group| group.spec.tenant == *tenant)
                .cloned()
                .collect();
            return Some(Job::End(ending, others));
        }
        let Schedule { groups, due, .. } = schedule;
        for (key, due) in due.iter_mut() {
            let interval = groups
                .get(key)
                .map_or(1, |group| interval_ns(group.spec.interval));
            if !due.running && due.next.saturating_sub(now) > interval.saturating_mul(2) {
                // The clock has jumped back.
                due.next = groups
                    .get(key)
                    .map_or(due.next, |group| group.slot(now) + interval);
                due.last = None;
            }
        }
        let ready = due
            .iter_mut()
            .filter(|(_, due)| !due.running && due.next <= now);
        let (key, due) = ready.min_by_key(|(_, due)| due.next)?;
        let group = groups.get(key)?.clone();
        let interval = interval_ns(group.spec.interval);
        let missed = (now - due.next) / interval;
        let metrics = &self.shared.metrics;
        let of = &[key.as_str()];
        let count = u64::try_from(missed).unwrap_or(0);
        metrics.iterations.with_label_values(of).inc_by(1 + count);
        metrics.missed.with_label_values(of).inc_by(count);
        let moment = due.next + missed * interval;
        *due = Due {
            last: Some(moment),
            next: moment + interval,
            running: true,
        };
        Some(Job::Evaluate(
            group,
            TimestampMs(moment.div_euclid(1_000_000)),
        ))
    }
}
