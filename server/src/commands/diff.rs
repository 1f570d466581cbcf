//! `millrace diff A B`: two stores, series by series and sample by sample, bit for bit.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use clap::Args;
use millrace_log::fs::OsFs;
use millrace_model::{Labels, Matcher, ShardKey, TenantId, TimeRange, TimestampMs};
use millrace_store::{Store, StoreSeries};

use super::offline::{Offline, all, data};
use super::progress::Progress;
use super::records::show;
use super::tail::moment;
use crate::config::Config;
use crate::failure::Failure;
use crate::options;

/// Which stores.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A data directory that no server has open
    pub a: PathBuf,
    /// Another one
    pub b: PathBuf,
    /// Only samples from this moment on: RFC 3339, Unix seconds, or how long ago (1h)
    #[arg(long, value_parser = moment)]
    pub start: Option<TimestampMs>,
    /// Only samples up to this moment
    #[arg(long, value_parser = moment)]
    pub end: Option<TimestampMs>,
    /// Differences that are shown at most; all are counted
    #[arg(long, default_value_t = 20)]
    pub limit: u64,
}

/// What differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    series: u64,
    samples: u64,
    only_a: u64,
    only_b: u64,
    missing_in_a: u64,
    missing_in_b: u64,
    unequal: u64,
}

impl Tally {
    fn differs(&self) -> bool {
        let Self {
            series: _,
            samples: _,
            only_a,
            only_b,
            missing_in_a,
            missing_in_b,
            unequal,
        } = *self;
        only_a + only_b + missing_in_a + missing_in_b + unequal > 0
    }
}

/// Compares, prints the differences and a summary. Differences are a failure, as they are for
/// `diff`.
///
/// # Errors
///
/// A directory that cannot be opened or read, and stores that differ.
pub fn run(config: &Config, args: &DiffArgs) -> Result<(), Failure> {
    let a = open(config, &args.a)?;
    let b = open(config, &args.b)?;
    let range = TimeRange {
        start: args.start.unwrap_or(TimeRange::ALL.start),
        end: args.end.unwrap_or(TimeRange::ALL.end),
    };
    let mut tenants = a.store.tenants().map_err(data)?;
    tenants.extend(b.store.tenants().map_err(data)?);
    tenants.sort();
    tenants.dedup();
    let mut diff = Diff {
        tally: Tally::default(),
        limit: args.limit,
        shown: 0,
        columns: Default::default(),
    };
    for tenant in &tenants {
        let in_a = sorted(&a.store, tenant, range)?;
        let in_b = sorted(&b.store, tenant, range)?;
        diff.tenant(tenant, in_a, in_b)?;
    }
    let tally = diff.tally;
    if !tally.differs() {
        return crate::print(&format!(
            "no difference: {} series, {} samples\n",
            tally.series, tally.samples
        ));
    }
    Err(Failure::Data(format!(
        "the stores differ: {} series only in {}, {} only in {}; of {} series in both, {} samples are \
         missing in {}, {} in {}, {} have other values",
        tally.only_a,
        args.a.display(),
        tally.only_b,
        args.b.display(),
        tally.series,
        tally.missing_in_a,
        args.a.display(),
        tally.missing_in_b,
        args.b.display(),
        tally.unequal
    )))
}

struct Opened {
    store: Store,
    _offline: Offline,
}

fn open(config: &Config, data_dir: &Path) -> Result<Opened, Failure> {
    let dir = data_dir.join("store");
    let identity = Store::stored_identity(&OsFs, &dir, ShardKey::default()).map_err(data)?;
    let identity = identity
        .ok_or_else(|| Failure::Data(format!("there is no store in {}", data_dir.display())))?;
    let offline = Offline::open_dir(data_dir)?;
    let store = offline.open_store(options::store(config), &identity, &all(&identity))?;
    Ok(Opened {
        store,
        _offline: offline,
    })
}

/// All series of a tenant with samples in the range, by their labels.
fn sorted(store: &Store, tenant: &TenantId, range: TimeRange) -> Result<Vec<StoreSeries>, Failure> {
    let no_matchers: [Matcher; 0] = [];
    let mut series = store.select(tenant, &no_matchers, range).map_err(data)?;
    series.sort_by(|x, y| x.labels().cmp(y.labels()));
    Ok(series)
}

type Columns = (Vec<i64>, Vec<f64>);

struct Diff {
    tally: Tally,
    limit: u64,
    shown: u64,
    columns: (Columns, Columns),
}

impl Diff {
    fn tenant(
        &mut self,
        tenant: &TenantId,
        in_a: Vec<StoreSeries>,
        in_b: Vec<StoreSeries>,
    ) -> Result<(), Failure> {
        let total = in_a.len().max(in_b.len()) as u64;
        let mut progress = Progress::new("diff", "series", total);
        let (mut a, mut b) = (in_a.into_iter().peekable(), in_b.into_iter().peekable());
        let mut done = 0;
        loop {
            let order = match (a.peek(), b.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(x), Some(y)) => x.labels().cmp(y.labels()),
            };
            let x = if order.is_le() { a.next() } else { None };
            let y = if order.is_ge() { b.next() } else { None };
            self.pair(tenant, x.as_ref(), y.as_ref())?;
            done += 1;
            progress.set(done.min(total));
        }
        progress.finish();
        Ok(())
    }

    fn pair(
        &mut self,
        tenant: &TenantId,
        x: Option<&StoreSeries>,
        y: Option<&StoreSeries>,
    ) -> Result<(), Failure> {
        let mut columns = std::mem::take(&mut self.columns);
        read(x, &mut columns.0)?;
        read(y, &mut columns.1)?;
        let labels = x.or(y).map(StoreSeries::labels);
        let labels = labels.expect("a pair has at least one series");
        // The index may name a series whose samples all lie outside of the range.
        match (columns.0.0.is_empty(), columns.1.0.is_empty()) {
            (true, true) => {}
            (false, true) => {
                self.tally.only_a += 1;
                self.show(
                    tenant,
                    labels,
                    &format!("only in A, {} samples", columns.0.0.len()),
                )?;
            }
            (true, false) => {
                self.tally.only_b += 1;
                self.show(
                    tenant,
                    labels,
                    &format!("only in B, {} samples", columns.1.0.len()),
                )?;
            }
            (false, false) => {
                self.tally.series += 1;
                self.samples(tenant, labels, &columns.0, &columns.1)?;
            }
        }
        self.columns = columns;
        Ok(())
    }

    fn samples(
        &mut self,
        tenant: &TenantId,
        labels: &Labels,
        (times_a, values_a): &Columns,
        (times_b, values_b): &Columns,
    ) -> Result<(), Failure> {
        let (mut i, mut j) = (0, 0);
        while i < times_a.len() || j < times_b.len() {
            let order = match (times_a.get(i), times_b.get(j)) {
                (Some(x), Some(y)) => x.cmp(y),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            match order {
                Ordering::Less => {
                    self.tally.missing_in_b += 1;
                    let text = format!("{} {} only in A", times_a[i], show::number(values_a[i]));
                    self.show(tenant, labels, &text)?;
                }
                Ordering::Greater => {
                    self.tally.missing_in_a += 1;
                    let text = format!("{} {} only in B", times_b[j], show::number(values_b[j]));
                    self.show(tenant, labels, &text)?;
                }
                Ordering::Equal => {
                    self.tally.samples += 1;
                    if values_a[i].to_bits() != values_b[j].to_bits() {
                        self.tally.unequal += 1;
                        let (x, y) = (show::number(values_a[i]), show::number(values_b[j]));
                        let text = format!("{} A has {x}, B has {y}", times_a[i]);
                        self.show(tenant, labels, &text)?;
                    }
                }
            }
            i += usize::from(order.is_le());
            j += usize::from(order.is_ge());
        }
        Ok(())
    }

    fn show(&mut self, tenant: &TenantId, labels: &Labels, text: &str) -> Result<(), Failure> {
        if self.shown == self.limit {
            return Ok(());
        }
        self.shown += 1;
        crate::print(&format!("{tenant} {labels} {text}\n"))
    }
}

fn read(series: Option<&StoreSeries>, (times, values): &mut Columns) -> Result<(), Failure> {
    times.clear();
    values.clear();
    match series {
        Some(series) => series.read(times, values).map(drop).map_err(data),
        None => Ok(()),
    }
}
