//! Retention: which blocks, or which series of them, have had their time.
//!
//! Invariants:
//! - Data go by blocks: a rule touches a block when its **last** sample is older than the rule's age.
//!   Where that concerns all series the block goes; otherwise it is written again without them.
//! - Samples may go before their rollups, and fine rollups before coarse ones: for a block as a whole,
//!   by the age of its last sample as well.
//! - The age is counted from a time that three have to agree on: a clock that did not jump
//!   ([`RetentionClock`]), and the newest sample there is. So neither a clock that says 2038 nor one
//!   sample from 2038 makes the rest old.
//! - What would go can be asked for ([`crate::Store::retention_dry_run`]) by the function that decides.

use std::sync::Arc;
use std::time::Duration;

use millrace_log::planted::active;
use millrace_model::{Labels, Matcher, PartitionId, TenantId, TimestampMs};

use crate::block::{BlockOptions, BlockReader, Section};
use crate::compact::Keep;
use crate::error::StoreError;
use crate::paths::BlockId;
use crate::planted::{CLOCK_JUMP_BELIEVED, RETENTION_BY_FIRST};
use crate::shard::{LiveBlock, View};

/// What is kept for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionOptions {
    /// Samples older than this go, and all that was made of them. `None` keeps them.
    pub age: Option<Duration>,
    /// Samples older than this go, and their rollups stay. `None` keeps them as long as those.
    pub samples_age: Option<Duration>,
    /// Rollups older than this go, but for those of the coarsest resolution. Not before the samples.
    /// `None` keeps them as long as the coarsest.
    pub fine_rollups_age: Option<Duration>,
    /// Bytes of blocks, of all shards together, beyond which the oldest go. `None` keeps them.
    pub bytes: Option<u64>,
    /// Percent of the bytes of all blocks that go in an hour at most, beside as many bytes as came in it,
    /// if nobody asks for more by [`crate::Store::retain`]. 100 is no bound. One block may always go.
    pub hourly_percent: u8,
    /// Other ages; the first rule that fits a series counts.
    pub rules: Vec<RetentionRule>,
    /// A clock that is further ahead than this, compared with the last time it was looked at, is not
    /// believed.
    pub clock_jump_max: Duration,
    /// A clock that jumped is believed after it was seen this long.
    pub clock_believed_after: Duration,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        Self {
            age: None,
            samples_age: None,
            fine_rollups_age: None,
            bytes: None,
            hourly_percent: 10,
            rules: Vec::new(),
            clock_jump_max: Duration::from_secs(3600),
            clock_believed_after: Duration::from_secs(24 * 3600),
        }
    }
}

/// The age of some series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// Whose; everybody's if there is none.
    pub tenant: Option<TenantId>,
    /// The series: those that pass all of these.
    pub matchers: Vec<Matcher>,
    /// Their samples go when they are older. `None` keeps them.
    pub age: Option<Duration>,
}

impl RetentionOptions {
    /// What is wrong with the ages, if anything is. `rollups` are the widths of their buckets.
    #[must_use]
    pub fn check(&self, rollups: &[Duration]) -> Option<String> {
        if self.samples_age.is_some() && rollups.is_empty() {
            return Some("samples would go of which there are no rollups".to_owned());
        }
        let order = [
            ("samples", self.samples_age),
            ("fine rollups", self.fine_rollups_age),
            ("everything", self.age),
        ];
        let set: Vec<_> = order
            .iter()
            .filter_map(|(what, age)| Some((what, (*age)?)))
            .collect();
        let wrong = set.windows(2).find(|pair| pair[0].1 > pair[1].1)?;
        Some(format!(
            "{} would go after {:?}, before {} after {:?}",
            wrong[1].0, wrong[1].1, wrong[0].0, wrong[0].1
        ))
    }

    /// How a block whose last sample is of `last` is to be written at `now`, if not as it is.
    fn thinner(
        &self,
        reader: &BlockReader,
        last: i64,
        now: TimestampMs,
        coarsest_ms: Option<i64>,
    ) -> Option<BlockOptions> {
        let over = |age: Option<Duration>| age.is_some_and(|age| is_over(last, age, now));
        let stored = reader.resolutions();
        // Of a block from a time without rollups nothing would be left.
        if !over(self.samples_age) || stored.is_empty() {
            return None;
        }
        let coarse = coarsest_ms.filter(|ms| over(self.fine_rollups_age) && reader.has_rollup(*ms));
        let resolutions = coarse.map_or_else(|| stored.to_vec(), |ms| vec![ms]);
        let is_so = reader.without_samples() && resolutions == stored;
        (!is_so).then_some(BlockOptions {
            resolutions,
            without_samples: true,
        })
    }

    /// The age of a series.
    fn age_of(&self, tenant: &TenantId, labels: &Labels) -> Option<Duration> {
        let fits = |rule: &&RetentionRule| {
            rule.tenant.as_ref().is_none_or(|t| t == tenant)
                && rule.matchers.iter().all(|m| m.matches_labels(labels))
        };
        self.rules
            .iter()
            .find(fits)
            .map_or(self.age, |rule| rule.age)
    }

    /// How many of the ages a block whose last sample is of `last` has passed at `now`.
    fn passed(&self, last: i64, now: TimestampMs) -> usize {
        let ages = self.rules.iter().filter_map(|r| r.age).chain(self.age);
        ages.filter(|age| is_over(last, *age, now)).count()
    }
}

fn is_over(last: i64, age: Duration, now: TimestampMs) -> bool {
    last < now.saturating_sub(age).0
}

/// The time that retention believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetentionClock {
    /// Wall-clock time, in milliseconds since the epoch; `None` before the clock was ever looked at.
    believed: Option<i64>,
    /// When that was, in monotonic time.
    at: Duration,
    /// Since when the wall clock is too far ahead, in monotonic time.
    ahead_since: Option<Duration>,
}

impl RetentionClock {
    /// A clock that last believed `high_water`, at monotonic time `at`.
    pub(crate) fn new(high_water: Option<TimestampMs>, at: Duration) -> Self {
        Self {
            believed: high_water.map(|moment| moment.0),
            at,
            ahead_since: None,
        }
    }

    /// Looks at both clocks. The time that is believed never falls.
    pub(crate) fn observe(
        &mut self,
        wall: TimestampMs,
        monotonic: Duration,
        options: &RetentionOptions,
    ) -> TimestampMs {
        let Some(believed) = self.believed else {
            (self.believed, self.at) = (Some(wall.0), monotonic);
            return wall;
        };
        let elapsed = monotonic.saturating_sub(self.at);
        let expected = TimestampMs(believed).saturating_add(elapsed);
        let far = wall > expected.saturating_add(options.clock_jump_max);
        let next = if !far || active(CLOCK_JUMP_BELIEVED) {
            self.ahead_since = None;
            wall.0
        } else {
            let since = *self.ahead_since.get_or_insert(monotonic);
            if monotonic.saturating_sub(since) >= options.clock_believed_after {
                self.ahead_since = None;
                wall.0
            } else {
                expected.0
            }
        };
        let believed = next.max(believed);
        (self.believed, self.at) = (Some(believed), monotonic);
        TimestampMs(believed)
    }

    /// Believes the wall clock, because somebody has looked at it.
    pub(crate) fn confirm(&mut self, wall: TimestampMs, monotonic: Duration) {
        *self = Self::new(Some(wall), monotonic);
    }

    /// Whether the wall clock is not believed at present.
    pub(crate) fn is_frozen(&self) -> bool {
        self.ahead_since.is_some()
    }
}

/// What retention would remove of one block, or has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionItem {
    /// The shard.
    pub partition: PartitionId,
    /// The block.
    pub block: BlockId,
    /// First and last timestamp of the block.
    pub range: (TimestampMs, TimestampMs),
    /// Series that go.
    pub series: u64,
    /// Their samples.
    pub samples: u64,
    /// Bytes that go: those of the block if all of it does; of some series their share by samples;
    /// otherwise about those of the samples, or of the rollups.
    pub bytes: u64,
    /// What of the block goes.
    pub what: RetentionPart,
    /// Why.
    pub reason: RetentionReason,
}

/// What of a block goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionPart {
    /// All of it.
    Block,
    /// Some of its series.
    Series,
    /// The samples, and not their rollups.
    Samples,
    /// Rollups that are finer than the coarsest.
    Rollups,
}

impl RetentionPart {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Series => "series",
            Self::Samples => "samples",
            Self::Rollups => "rollups",
        }
    }
}

/// Why something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionReason {
    /// It is too old.
    Age,
    /// There is too much.
    Bytes,
}

impl RetentionReason {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Bytes => "bytes",
        }
    }
}

/// What retention would do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionReport {
    /// The time that ages are counted from; `None` while there is no sample.
    pub now: Option<TimestampMs>,
    /// Whether the wall clock is not believed, because it jumped ahead.
    pub clock_frozen: bool,
    /// What goes, the oldest first.
    pub items: Vec<RetentionItem>,
}

/// A decision, and the block that it is about.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    pub(crate) item: RetentionItem,
    pub(crate) live: Arc<LiveBlock>,
    /// How the block is written again, if samples or rollups go.
    pub(crate) thinner: Option<BlockOptions>,
}

/// The time that ages are counted from: what the clock says, but not beyond the newest sample.
pub(crate) fn retention_time(
    believed: TimestampMs,
    views: &[(PartitionId, Arc<View>)],
) -> Option<TimestampMs> {
    let of_view = |(_, view): &(PartitionId, Arc<View>)| {
        let blocks = view.blocks.iter().map(|b| b.entry.max_time).max();
        let tables = view.tables.iter();
        let tables = tables.filter_map(|t| t.table.rows().time_range().map(|r| r.end.0));
        blocks.max(tables.max())
    };
    let newest = views.iter().filter_map(of_view).max()?;
    Some(TimestampMs(newest.min(believed.0)))
}

/// What goes at `now`, the oldest first. `coarsest_ms` is the width of the widest rollups' buckets.
///
/// # Errors
///
/// A block that is damaged or cannot be read.
pub(crate) fn decide(
    options: &RetentionOptions,
    views: &[(PartitionId, Arc<View>)],
    now: TimestampMs,
    coarsest_ms: Option<i64>,
) -> Result<Vec<Decision>, StoreError> {
    let mut decisions = Vec::new();
    let mut left = Vec::new();
    for (partition, view) in views {
        for block in &view.blocks {
            let mut decision = judge(options, *partition, block, now)?;
            if decision.is_none() {
                decision = thin(options, *partition, block, now, coarsest_ms);
            }
            let goes = decision.as_ref().map_or(0, |d| d.item.bytes);
            if decision
                .as_ref()
                .is_none_or(|d| d.item.what != RetentionPart::Block)
            {
                left.push((*partition, Arc::clone(block), block.entry.bytes - goes));
            }
            decisions.extend(decision);
        }
    }
    if let Some(max) = options.bytes {
        let mut bytes: u64 = left.iter().map(|l| l.2).sum();
        left.sort_by_key(|(partition, block, _)| {
            (block.entry.max_time, partition.0, block.entry.id)
        });
        for (partition, block, its) in left {
            if bytes <= max {
                break;
            }
            bytes -= its;
            decisions.retain(|d| d.item.partition != partition || d.item.block != block.entry.id);
            decisions.push(whole(partition, &block, RetentionReason::Bytes));
        }
    }
    decisions.sort_by_key(|d| (d.item.range.1, d.item.partition.0, d.item.block));
    Ok(decisions)
}

fn whole(partition: PartitionId, block: &Arc<LiveBlock>, reason: RetentionReason) -> Decision {
    let entry = &block.entry;
    Decision {
        item: RetentionItem {
            partition,
            block: entry.id,
            range: (TimestampMs(entry.min_time), TimestampMs(entry.max_time)),
            series: entry.series,
            samples: entry.samples,
            bytes: entry.bytes,
            what: RetentionPart::Block,
            reason,
        },
        live: Arc::clone(block),
        thinner: None,
    }
}

/// What of one block is too old.
fn judge(
    options: &RetentionOptions,
    partition: PartitionId,
    block: &Arc<LiveBlock>,
    now: TimestampMs,
) -> Result<Option<Decision>, StoreError> {
    let last = last_of(block);
    let passed = options.passed(last, now);
    if passed == 0 || *block.kept_after.lock() == Some(passed) {
        return Ok(None);
    }
    if options.rules.is_empty() {
        return Ok(Some(whole(partition, block, RetentionReason::Age)));
    }
    let keep = Unexpired::new(options, last, now);
    let (mut series, mut samples) = (0, 0);
    for entry in &block.reader {
        let (tenant, of_block) = entry?;
        if !keep.keeps(&tenant, &of_block.labels) {
            series += 1;
            samples += of_block.place.samples();
        }
    }
    if series == 0 {
        *block.kept_after.lock() = Some(passed);
        return Ok(None);
    }
    let mut decision = whole(partition, block, RetentionReason::Age);
    if series < block.entry.series {
        let share = u128::from(block.entry.bytes) * u128::from(samples);
        let share = share / u128::from(block.entry.samples.max(1));
        decision.item.bytes = u64::try_from(share).unwrap_or(block.entry.bytes);
        (decision.item.series, decision.item.samples) = (series, samples);
        decision.item.what = RetentionPart::Series;
    }
    Ok(Some(decision))
}

/// What of one block goes before the block does.
fn thin(
    options: &RetentionOptions,
    partition: PartitionId,
    block: &Arc<LiveBlock>,
    now: TimestampMs,
    coarsest_ms: Option<i64>,
) -> Option<Decision> {
    let thinner = options.thinner(&block.reader, last_of(block), now, coarsest_ms)?;
    let mut decision = whole(partition, block, RetentionReason::Age);
    let item = &mut decision.item;
    let bytes = block.reader.summary().section_bytes;
    if block.reader.without_samples() {
        item.what = RetentionPart::Rollups;
        item.samples = 0;
        // What is left of them is little: a twelfth, from 5 minutes to an hour.
        item.bytes = bytes[Section::Rollups as usize];
    } else {
        item.what = RetentionPart::Samples;
        item.bytes = bytes[Section::Chunks as usize];
    }
    decision.thinner = Some(thinner);
    Some(decision)
}

fn last_of(block: &LiveBlock) -> i64 {
    if active(RETENTION_BY_FIRST) {
        return block.entry.min_time;
    }
    block.entry.max_time
}

/// Keeps the series of a block that no rule has ended.
#[derive(Debug)]
pub(crate) struct Unexpired {
    options: RetentionOptions,
    last: i64,
    now: TimestampMs,
}

impl Unexpired {
    fn new(options: &RetentionOptions, last: i64, now: TimestampMs) -> Self {
        Self {
            options: options.clone(),
            last,
            now,
        }
    }

    /// Of one block.
    pub(crate) fn of(options: &RetentionOptions, block: &LiveBlock, now: TimestampMs) -> Self {
        Self::new(options, last_of(block), now)
    }
}

impl Keep for Unexpired {
    fn keeps(&self, tenant: &TenantId, labels: &Labels) -> bool {
        let age = self.options.age_of(tenant, labels);
        !age.is_some_and(|age| is_over(self.last, age, self.now))
    }
}

#[cfg(test)]
#[path = "retain_tests.rs"]
mod tests;
