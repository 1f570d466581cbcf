use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use millrace_log::planted as log_planted;
use millrace_model::batch::{Batch, FloatSectionWriter, SectionContent};
use millrace_model::{Labels, Offset, QueueId, Sample, SeriesHasher, ShardKey, TimestampMs};
use parking_lot::Condvar;

use super::*;
use crate::planted;
use crate::traits::{AppendDone, Durability};

/// A backend that does nothing until the test tells it to.
#[derive(Debug)]
struct Held {
    identity: QueueIdentity,
    calls: Mutex<Vec<Call>>,
    arrived: Condvar,
    /// From now on every call succeeds at once.
    free: AtomicBool,
}

struct Call {
    partition: PartitionId,
    batches: Vec<Bytes>,
    done: AppendDone,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} batches for {}", self.batches.len(), self.partition)
    }
}

impl Producer for Held {
    fn identity(&self) -> &QueueIdentity {
        &self.identity
    }
    fn durability(&self) -> Durability {
        Durability::Process
    }
    fn append(&self, partition: PartitionId, batches: Vec<Bytes>, done: AppendDone) {
        if self.free.load(Ordering::SeqCst) {
            return done(Ok(Offset(0)..Offset(1)));
        }
        self.calls.lock().push(Call {
            partition,
            batches,
            done,
        });
        self.arrived.notify_all();
    }
    fn max_batch_bytes(&self) -> usize {
        1 << 20
    }
}

impl Held {
    /// The oldest call that was not taken, waiting for one.
    fn take(&self) -> Call {
        let mut calls = self.calls.lock();
        while calls.is_empty() {
            self.arrived.wait(&mut calls);
        }
        calls.remove(0)
    }

    fn waiting(&self) -> usize {
        self.calls.lock().len()
    }
}

impl Call {
    fn succeed(self, end: u64) {
        (self.done)(Ok(Offset(0)..Offset(end)));
    }

    /// Tenant and values of each batch, in order.
    fn contents(&self) -> Vec<(String, Vec<f64>)> {
        self.batches.iter().map(|bytes| contents(bytes)).collect()
    }
}

fn contents(bytes: &[u8]) -> (String, Vec<f64>) {
    let batch = Batch::decode(bytes).unwrap();
    let mut samples = Vec::new();
    for section in batch.sections() {
        let SectionContent::Float(mut series) = section.unwrap().content().unwrap() else {
            panic!("only floats were submitted");
        };
        while series.next_series(&mut samples).unwrap().is_some() {}
    }
    let values = samples.iter().map(|sample| sample.value).collect();
    (batch.tenant().to_string(), values)
}

fn held(partitions: u32) -> Arc<Held> {
    Arc::new(Held {
        identity: QueueIdentity {
            id: QueueId(7),
            partitions,
            shard_key: ShardKey::default(),
        },
        calls: Mutex::default(),
        arrived: Condvar::new(),
        free: AtomicBool::new(false),
    })
}

/// One append at a time, so that what waits is under the test's control.
fn one_at_a_time() -> AppenderOptions {
    AppenderOptions {
        max_in_flight: 1,
        ..AppenderOptions::default()
    }
}

fn appender(backend: &Arc<Held>, options: AppenderOptions) -> Appender {
    let producer = Arc::clone(backend) as Arc<dyn Producer>;
    Appender::new(producer, options, &Registry::new())
}

/// A section whose one sample has the value `value`.
fn section(value: f64, label_bytes: usize) -> EncodedSection {
    let labels = Labels::from_pairs([("a", "x".repeat(label_bytes).as_str())]).unwrap();
    let mut writer = FloatSectionWriter::new();
    let sample = Sample {
        timestamp: TimestampMs(1),
        value,
    };
    let id = SeriesHasher::new(&TenantId::anonymous()).id(&labels);
    writer.push(id, labels.canonical(), &[sample]);
    writer.finish().unwrap()
}

fn submit(appender: &Appender, tenant: &str, value: f64) -> PendingAppend {
    submit_to(appender, 0, tenant, section(value, 10)).unwrap()
}

fn submit_to(
    appender: &Appender,
    partition: u32,
    tenant: &str,
    section: EncodedSection,
) -> Result<PendingAppend, SubmitError> {
    let tenant = tenant.parse().unwrap();
    appender.submit(&tenant, vec![(PartitionId(partition), section)])
}

fn next_of(position: &Position) -> BTreeMap<u32, u64> {
    position.next.iter().map(|(p, o)| (p.0, o.0)).collect()
}

#[test]
fn submissions_during_an_append_share_the_next_one_by_tenant() {
    let backend = held(1);
    let appender = appender(&backend, one_at_a_time());
    let first = submit(&appender, "b", 1.0);
    let call = backend.take();
    let rest: Vec<_> = [("b", 2.0), ("a", 3.0), ("b", 4.0)]
        .map(|(tenant, value)| submit(&appender, tenant, value))
        .into();
    call.succeed(1);
    assert_eq!(next_of(&first.wait().unwrap()), BTreeMap::from([(0, 1)]));
    let call = backend.take();
    assert_eq!(
        call.contents(),
        [
            ("a".to_owned(), vec![3.0]),
            ("b".to_owned(), vec![2.0, 4.0])
        ]
    );
    call.succeed(3);
    for pending in rest {
        assert_eq!(next_of(&pending.wait().unwrap()), BTreeMap::from([(0, 3)]));
    }
    appender.close();
}

#[test]
fn what_exceeds_a_batch_is_split_and_what_exceeds_an_append_waits() {
    let backend = held(1);
    // Room for two of the sections below in one batch.
    let max_batch_bytes = 2600;
    let appender = appender(
        &backend,
        AppenderOptions {
            max_batch_bytes,
            ..one_at_a_time()
        },
    );
    let big = |value| submit_to(&appender, 0, "t", section(value, 1100)).unwrap();
    let mut pending = vec![big(0.0)];
    let call = backend.take();
    pending.extend((1..12).map(|i| big(f64::from(i))));
    call.succeed(1);
    let mut values = Vec::new();
    for _ in 0..2 {
        let call = backend.take();
        for batch in &call.batches {
            assert!(batch.len() <= max_batch_bytes, "{} bytes", batch.len());
        }
        values.extend(call.contents().into_iter().map(|(_, values)| values));
        call.succeed(9);
    }
    // Four full batches' worth of bytes make an append: nine sections.
    let pairs = |from: u32| vec![f64::from(from), f64::from(from + 1)];
    assert_eq!(
        values,
        [pairs(1), pairs(3), pairs(5), pairs(7), vec![9.0], pairs(10)]
    );
    for pending in pending {
        pending.wait().unwrap();
    }
    appender.close();
}

#[test]
fn a_section_that_fits_in_no_batch_is_refused_and_the_longest_that_does_is_not() {
    let backend = held(1);
    let options = AppenderOptions {
        max_batch_bytes: 2000,
        ..one_at_a_time()
    };
    let appender = appender(&backend, options);
    let max = appender.max_section_bytes();
    let around = max - section(0.0, 1000).bytes_len() + 1000;
    let longest = section(0.0, around);
    assert_eq!(longest.bytes_len(), max);
    let name = "t".repeat(TenantId::MAX_BYTES);
    let pending = submit_to(&appender, 0, &name, longest).unwrap();
    let call = backend.take();
    assert!(call.batches[0].len() <= 2000);
    call.succeed(1);
    pending.wait().unwrap();
    let refused = submit_to(&appender, 0, &name, section(0.0, around + 1)).unwrap_err();
    assert_eq!(
        refused,
        SubmitError::TooLarge {
            bytes: max + 1,
            max_bytes: max
        }
    );
    appender.close();
}

/// Submits more and more without the backend moving; how many were taken before one was refused.
fn taken_before_overload(max_pending_bytes: usize) -> usize {
    let backend = held(2);
    let options = AppenderOptions {
        max_pending_bytes,
        ..one_at_a_time()
    };
    let appender = appender(&backend, options);
    let mut pending = Vec::new();
    while pending.len() < 100 {
        let partition = pending.len() as u32 % 2;
        match submit_to(&appender, partition, "t", section(0.0, 10)) {
            Ok(accepted) => pending.push(accepted),
            Err(SubmitError::Overloaded { pending_bytes, .. }) => {
                assert!(pending_bytes <= max_pending_bytes);
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    let count = pending.len();
    // Draining makes room again.
    let calls = [backend.take(), backend.take()];
    backend.free.store(true, Ordering::SeqCst);
    calls.into_iter().for_each(|call| call.succeed(1));
    for pending in pending {
        pending.wait().unwrap();
    }
    submit_to(&appender, 0, "t", section(0.0, 10))
        .unwrap()
        .wait()
        .unwrap();
    appender.close();
    count
}

#[test]
fn overload_is_refused_at_once_and_over_when_it_drains() {
    let one = section(0.0, 10).bytes_len() + SECTION_OVERHEAD_BYTES;
    assert_eq!(taken_before_overload(one * 7 + one - 1), 7);
}

#[test]
fn planted_pending_not_counted_is_noticed() {
    let one = section(0.0, 10).bytes_len() + SECTION_OVERHEAD_BYTES;
    let taken = log_planted::with(planted::PENDING_NOT_COUNTED, || {
        taken_before_overload(one * 7 + one - 1)
    });
    assert_ne!(taken, 7);
}

#[test]
fn a_submission_beyond_the_whole_budget_is_too_large() {
    let backend = held(1);
    let options = AppenderOptions {
        max_pending_bytes: 100,
        ..one_at_a_time()
    };
    let appender = appender(&backend, options);
    let refused = submit_to(&appender, 0, "t", section(0.0, 200)).unwrap_err();
    assert!(matches!(
        refused,
        SubmitError::TooLarge { max_bytes: 100, .. }
    ));
    appender.close();
}

#[test]
fn parts_resolve_together_and_one_failure_is_the_outcome() {
    let backend = held(3);
    let appender = appender(&backend, one_at_a_time());
    let tenant = "t".parse().unwrap();
    let parts = || (0..3).map(|p| (PartitionId(p), section(0.0, 10))).collect();
    let by_partition = || {
        let mut calls = [0; 3].map(|_| backend.take());
        calls.sort_by_key(|call| call.partition);
        calls
    };
    let pending = appender.submit(&tenant, parts()).unwrap();
    for (call, end) in by_partition().into_iter().zip([4, 5, 6]) {
        call.succeed(end);
    }
    assert_eq!(
        next_of(&pending.wait().unwrap()),
        BTreeMap::from([(0, 4), (1, 5), (2, 6)])
    );

    let pending = appender.submit(&tenant, parts()).unwrap();
    let [a, b, c] = by_partition();
    a.succeed(5);
    (b.done)(Err(AppendError::Failed {
        partition: PartitionId(1),
        reason: "no space".to_owned(),
    }));
    assert_eq!(
        pending.wait().unwrap_err().to_string(),
        "partition 1: no space"
    );
    c.succeed(7);
    appender.close();
}

#[test]
fn nothing_submitted_is_durable_at_once() {
    let backend = held(1);
    let appender = appender(&backend, one_at_a_time());
    let position = appender.submit(&"t".parse().unwrap(), Vec::new()).unwrap();
    assert_eq!(position.wait().unwrap(), Position::new(QueueId(7)));
    appender.close();
}

#[test]
fn a_dropped_pending_append_is_appended_all_the_same() {
    let backend = held(1);
    let appender = appender(&backend, one_at_a_time());
    let first = submit(&appender, "t", 1.0);
    let call = backend.take();
    drop(first);
    drop(submit(&appender, "t", 2.0));
    call.succeed(1);
    let call = backend.take();
    assert_eq!(call.contents(), [("t".to_owned(), vec![2.0])]);
    call.succeed(2);
    appender.close();
}

#[test]
fn a_backend_that_forgets_an_append_fails_it() {
    let backend = held(1);
    let appender = appender(&backend, one_at_a_time());
    let pending = submit(&appender, "t", 1.0);
    drop(backend.take());
    assert!(matches!(pending.wait(), Err(AppendError::Failed { .. })));
    // The lane goes on.
    let pending = submit(&appender, "t", 2.0);
    backend.take().succeed(1);
    pending.wait().unwrap();
    appender.close();
}

#[test]
fn appends_in_flight_are_bounded_and_may_end_in_any_order() {
    let backend = held(1);
    let options = AppenderOptions {
        max_in_flight: 2,
        ..AppenderOptions::default()
    };
    let appender = appender(&backend, options);
    let first = submit(&appender, "t", 1.0);
    let a = backend.take();
    let second = submit(&appender, "t", 2.0);
    let b = backend.take();
    let third = submit(&appender, "t", 3.0);
    let fourth = submit(&appender, "t", 4.0);
    assert_eq!(backend.waiting(), 0, "two are in flight");
    b.succeed(2);
    second.wait().unwrap();
    let c = backend.take();
    assert_eq!(c.contents(), [("t".to_owned(), vec![3.0, 4.0])]);
    a.succeed(1);
    first.wait().unwrap();
    c.succeed(3);
    third.wait().unwrap();
    fourth.wait().unwrap();
    appender.close();
}

#[test]
fn close_appends_what_was_accepted_and_refuses_the_rest() {
    let backend = held(1);
    let appender = appender(&backend, one_at_a_time());
    let first = submit(&appender, "t", 1.0);
    let call = backend.take();
    let second = submit(&appender, "t", 2.0);
    appender.handle.core.close();
    let refused = submit_to(&appender, 0, "t", section(3.0, 10)).unwrap_err();
    assert_eq!(refused, SubmitError::Closed);
    let closing = std::thread::spawn({
        let appender = appender.clone();
        move || appender.close()
    });
    call.succeed(1);
    first.wait().unwrap();
    backend.take().succeed(2);
    second.wait().unwrap();
    closing.join().unwrap();
    appender.close();
}

#[test]
fn linger_waits_for_others_until_a_batch_is_full() {
    let backend = held(1);
    let options = AppenderOptions {
        // Only a full batch or the end of the test can end it.
        linger: Duration::from_secs(3600),
        max_batch_bytes: 3000,
        ..one_at_a_time()
    };
    let appender = appender(&backend, options);
    let pending: Vec<_> = (0..3)
        .map(|i| submit_to(&appender, 0, "t", section(f64::from(i), 1000)).unwrap())
        .collect();
    let call = backend.take();
    let values: Vec<f64> = call.contents().into_iter().flat_map(|(_, v)| v).collect();
    assert_eq!(values, [0.0, 1.0, 2.0]);
    call.succeed(2);
    for pending in pending {
        pending.wait().unwrap();
    }
    appender.close();
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_pending_append_wakes_the_task_that_awaits_it() {
    let backend = held(1);
    let appender = appender(&backend, one_at_a_time());
    let mut pending = pin!(submit(&appender, "t", 1.0));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    assert!(pending.as_mut().poll(&mut context).is_pending());
    let call = backend.take();
    let answer = std::thread::spawn(move || call.succeed(1));
    let outcome = loop {
        match pending.as_mut().poll(&mut context) {
            Poll::Ready(outcome) => break outcome,
            Poll::Pending => std::thread::park(),
        }
    };
    assert_eq!(next_of(&outcome.unwrap()), BTreeMap::from([(0, 1)]));
    answer.join().unwrap();
    appender.close();
}
