//! Where targets come from: each discovery hands its pool all groups that it knows, whenever they
//! have changed. What a look cannot find out stays as it was.

mod dns;
mod file;
mod http;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use millrace_log::fs::Fs;
use millrace_relabel::LabelSet;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{Discovery, StaticGroup};
use crate::pool::Pool;

/// Targets that share labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// Labels of each target; `__address__` among them.
    pub(crate) targets: Vec<BTreeMap<String, String>>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Group {
    /// A group as it is written, with further labels that say where it is from.
    pub(crate) fn new(group: &StaticGroup, meta: &[(&str, &str)]) -> Self {
        let target =
            |address: &String| BTreeMap::from([("__address__".to_owned(), address.clone())]);
        let mut labels = group.labels.clone();
        for (name, value) in meta {
            labels.insert((*name).to_owned(), (*value).to_owned());
        }
        Self {
            targets: group.targets.iter().map(target).collect(),
            labels,
        }
    }

    /// The label sets of its targets. What a target says stands against what the group says.
    pub(crate) fn labels(&self) -> impl Iterator<Item = LabelSet> {
        self.targets.iter().map(|target| {
            let pairs = self.labels.iter().chain(target);
            pairs
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect()
        })
    }
}

/// Starts to look. Returns what is known at once, and the task that looks for more if there is one.
pub(crate) fn start(
    pool: &Arc<Pool>,
    number: u64,
    discovery: &Discovery,
    fs: Arc<dyn Fs>,
) -> (Vec<Group>, Option<JoinHandle<()>>) {
    // The pool owns its discoveries; they must not keep it.
    let finder = Finder {
        pool: Arc::downgrade(pool),
        number,
        fs,
    };
    let task = match discovery {
        Discovery::Static(groups) => {
            let groups = groups.iter().map(|group| Group::new(group, &[]));
            return (groups.collect(), None);
        }
        Discovery::File(sd) => tokio::spawn(file::run(finder, sd.clone())),
        Discovery::Http(sd, http) => tokio::spawn(http::run(finder, *sd.clone(), *http.clone())),
        Discovery::Dns(sd) => tokio::spawn(dns::run(finder, sd.clone())),
    };
    (Vec::new(), Some(task))
}

/// Tells a pool what was found.
struct Finder {
    pool: Weak<Pool>,
    number: u64,
    fs: Arc<dyn Fs>,
}

impl Finder {
    /// Hands over all groups. Whether the pool is still there.
    fn tell(&self, groups: Vec<Group>) -> bool {
        let pool = self.pool.upgrade();
        if let Some(pool) = &pool {
            pool.found(self.number, groups);
        }
        pool.is_some()
    }

    /// Counts a look that failed, and says why.
    fn failed(&self, mechanism: &'static str, what: &str, error: &str) {
        if let Some(pool) = self.pool.upgrade() {
            pool.shared().metrics.discovery_failed(mechanism);
            let job = pool.job();
            let job = job.name();
            tracing::warn!(
                job,
                mechanism,
                what,
                error,
                "targets could not be looked for"
            );
        }
    }
}

/// Ticks at once and then in every interval.
fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
