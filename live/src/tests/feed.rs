//! What subscribers are told, from where, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use millrace_model::{MatchOp, Offset, PartitionId, QueueId};
use proptest::prelude::*;
use serde_json::json;

use super::world::record;
use super::*;
use crate::Applied as _;
use crate::http::StillAllowed;

fn row(partition: u64, series: &str, at: i64, value: &str) -> (u64, String, i64, String) {
    (partition, series.to_owned(), at, value.to_owned())
}

#[tokio::test]
async fn what_is_applied_is_told_and_what_is_only_queued_is_not() {
    let world = World::new(1);
    let live = feed(&world, options());
    let mut a = listen(&live, named("t", "a"), None);
    assert_eq!(next(&mut a).await.kind, Kind::Hello);
    world.push(
        0,
        record("t", &[("a", 1, 1.0), ("b", 1, 2.0), ("a", 2, f64::NAN)]),
    );
    world.append(0, record("t", &[("a", 3, 3.0)]));
    let events = read(&mut a, 2).await;
    let all: Vec<_> = events.iter().flat_map(told).collect();
    assert_eq!(all, [row(0, "a", 1, "1"), row(0, "a", 2, "NaN")]);
    world.apply(0);
    let events = read(&mut a, 1).await;
    assert_eq!(told(&events[0]), [row(0, "a", 3, "3")]);
}

#[tokio::test]
async fn tenants_and_the_labels_that_a_token_is_bound_to_are_kept_apart() {
    let world = World::new(1);
    let live = feed(&world, options());
    let mut bound = named("t", "a");
    bound.sets = vec![vec![
        Matcher::new("series", MatchOp::Regex, "a|b").unwrap(),
        Matcher::equal("series", "b"),
    ]];
    let mut one = listen(&live, bound, None);
    let mut other = listen(&live, named("u", "b"), None);
    world.push(0, record("t", &[("a", 1, 1.0), ("b", 1, 2.0)]));
    world.push(0, record("u", &[("a", 1, 3.0), ("b", 1, 4.0)]));
    assert_eq!(told(&read(&mut one, 1).await[0]), [row(0, "b", 1, "2")]);
    assert_eq!(told(&read(&mut other, 1).await[0]), [row(0, "b", 1, "4")]);
}

#[tokio::test]
async fn a_record_that_is_no_batch_tells_nothing_and_holds_up_nothing() {
    let world = World::new(1);
    let live = feed(&world, options());
    let mut a = listen(&live, named("t", "a"), None);
    let mut broken = record("t", &[("a", 1, 1.0)]).to_vec();
    let last = broken.len() - 1;
    broken[last] ^= 1;
    world.push(0, Bytes::from(broken));
    world.push(0, record("t", &[("a", 2, 2.0)]));
    assert_eq!(told(&read(&mut a, 1).await[0]), [row(0, "a", 2, "2")]);
}

#[tokio::test]
async fn who_comes_later_with_another_selection_misses_nothing() {
    let world = World::new(1);
    let live = feed(&world, options());
    let mut a = listen(&live, named("t", "a"), None);
    let begin = next(&mut a).await.place;
    for at in 0..5 {
        world.push(0, record("t", &[("a", at, 0.0), ("b", at, 0.0)]));
    }
    // The ring has these records, but only for the first selection.
    read(&mut a, 5).await;
    let mut b = listen(&live, named("t", "b"), Some(&begin));
    world.push(0, record("t", &[("b", 5, 0.0)]));
    let events = read(&mut b, 6).await;
    let times: Vec<_> = events.iter().flat_map(told).map(|row| row.2).collect();
    assert_eq!(times, [0, 1, 2, 3, 4, 5]);
}

/// A store that was killed applies again what it lost, while those who had seen it wait.
#[tokio::test]
async fn what_is_applied_again_after_a_kill_is_not_told_again() {
    let world = World::new(1);
    let live = feed(&world, options());
    let mut a = listen(&live, named("t", "a"), None);
    for at in 0..3 {
        world.push(0, record("t", &[("a", at, 0.0)]));
    }
    let seen = read(&mut a, 3).await.pop().unwrap().place;
    drop((a, live));
    world.unapply(0, 2);
    let live = feed(&world, options());
    let mut a = listen(&live, named("t", "a"), Some(&seen));
    world.push(0, record("t", &[("a", 3, 0.0)]));
    let events = read(&mut a, 1).await;
    assert_eq!(told(&events[0]), [row(0, "a", 3, "0")]);
}

#[tokio::test]
async fn who_reads_too_slowly_is_dropped_with_a_marker_and_can_go_on_from_there() {
    let world = World::new(1);
    let small = LiveOptions {
        ring_bytes: 2_000,
        ..options()
    };
    let live = feed(&world, small);
    let mut slow = listen(&live, named("t", "a"), None);
    let mut quick = listen(&live, named("t", "a"), None);
    world.push(0, record("t", &[("a", 0, 0.0)]));
    read(&mut slow, 1).await;
    // It has reached the ring, and looks no more.
    tokio::select! {
        biased;
        event = slow.next() => panic!("{event:?}"),
        () = std::future::ready(()) => {}
    }
    for at in 1..200 {
        world.push(0, record("t", &[("a", at, 0.0)]));
        // Only so that frames are many.
        read(&mut quick, if at == 1 { 2 } else { 1 }).await;
    }
    let last = next(&mut slow).await;
    assert_eq!(last.kind, Kind::Dropped, "{last:?}");
    assert_eq!(data(&last)["reason"], "the subscriber reads too slowly");
    assert!(data(&last)["reconnectMs"].as_u64().unwrap() >= 2_000);
    assert!(slow.next().await.is_none());
    assert!(live.0.lanes[0].ring.bytes() <= 2_000);
    assert_eq!(live.0.metrics.dropped.with_label_values(&["slow"]).get(), 1);
    let mut again = listen(&live, named("t", "a"), Some(&last.place));
    let events = read(&mut again, 199).await;
    let times: Vec<_> = events.iter().flat_map(told).map(|row| row.2).collect();
    assert_eq!(times, (1..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_the_queue_has_no_more_is_told_as_a_gap() {
    let world = World::new(2);
    let live = feed(&world, options());
    let mut a = listen(&live, named("t", "a"), None);
    let begin = next(&mut a).await.place;
    drop(a);
    for at in 0..10 {
        world.push(1, record("t", &[("a", at, 0.0)]));
    }
    world.forget(1, 4);
    let mut a = listen(&live, named("t", "a"), Some(&begin));
    assert_eq!(next(&mut a).await.kind, Kind::Hello);
    let gap = next(&mut a).await;
    assert_eq!(gap.kind, Kind::Gap);
    let reason = "the queue has these records no more";
    assert_eq!(
        data(&gap),
        json!({"reason": reason, "partition": 1, "from": 0, "to": 4})
    );
    assert_eq!(told(&read(&mut a, 6).await[0])[0], row(1, "a", 4, "0"));
}

#[tokio::test]
async fn a_place_of_another_queue_and_one_behind_the_end_are_gaps() {
    let world = World::new(1);
    let live = feed(&world, options());
    let foreign = Position::new(QueueId(8));
    let mut a = listen(&live, named("t", "a"), Some(&foreign));
    assert_eq!(next(&mut a).await.kind, Kind::Hello);
    let gap = next(&mut a).await;
    assert_eq!(
        (gap.kind, data(&gap)["from"].as_str()),
        (Kind::Gap, Some(&*foreign.to_string()))
    );
    let mut ahead = Position::new(world::QUEUE);
    ahead.advance(PartitionId(0), Offset(9));
    let mut b = listen(&live, named("t", "a"), Some(&ahead));
    assert_eq!(next(&mut b).await.kind, Kind::Hello);
    let gap = next(&mut b).await;
    let reason = "the queue ends before this place";
    assert_eq!(
        data(&gap),
        json!({"reason": reason, "partition": 0, "from": 9, "to": 0})
    );
    world.push(0, record("t", &[("a", 1, 0.0)]));
    read(&mut a, 1).await;
    read(&mut b, 1).await;
}

#[tokio::test]
async fn nothing_happening_is_told_with_the_place_up_to_which_nothing_happened() {
    let world = World::new(1);
    let quick = LiveOptions {
        heartbeat: Duration::from_millis(20),
        ..options()
    };
    let live = feed(&world, quick);
    let mut a = listen(&live, named("t", "a"), None);
    assert_eq!(next(&mut a).await.kind, Kind::Hello);
    world.push(0, record("t", &[("b", 1, 0.0)]));
    let place = loop {
        let event = next(&mut a).await;
        assert_eq!(event.kind, Kind::Heartbeat, "{event:?}");
        if event.place.next[&PartitionId(0)] == Offset(1) {
            break event.place;
        }
    };
    // Without that place this would be a gap.
    world.forget(0, 1);
    world.push(0, record("t", &[("a", 2, 0.0)]));
    let mut again = listen(&live, named("t", "a"), Some(&place));
    read(&mut again, 1).await;
}

#[tokio::test]
async fn a_server_that_stops_says_goodbye_with_advice_and_takes_nobody_any_more() {
    let world = World::new(1);
    let live = feed(&world, options());
    let mut all: Vec<_> = (0..20)
        .map(|_| listen(&live, named("t", "a"), None))
        .collect();
    live.close();
    let mut advice = Vec::new();
    for subscriber in &mut all {
        assert_eq!(next(subscriber).await.kind, Kind::Hello);
        let goodbye = next(subscriber).await;
        assert_eq!(goodbye.kind, Kind::Goodbye);
        let after = data(&goodbye)["reconnectMs"].as_u64().unwrap();
        assert!((2_000..4_000).contains(&after), "{after}");
        advice.push(after);
        assert!(subscriber.next().await.is_none());
    }
    advice.sort_unstable();
    advice.dedup();
    assert!(
        advice.len() > 10,
        "all are told to come at once: {advice:?}"
    );
    assert_eq!(live.drained(Duration::ZERO).await, 20);
    drop(all);
    assert_eq!(live.drained(PATIENCE).await, 0);
    assert!(live.0.filters.now().of(&"t".parse().unwrap()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_ends_the_feed() {
    let world = World::new(1);
    let live = feed(&world, options());
    let allowed = Arc::new(AtomicBool::new(true));
    let asked = allowed.clone();
    let still = StillAllowed(Arc::new(move || asked.load(Ordering::SeqCst)));
    let filter = named("t", "a");
    let mut a = live.subscribe(filter, None, Some(still)).unwrap();
    assert_eq!(next(&mut a).await.kind, Kind::Hello);
    assert!(
        tokio::time::timeout(Duration::from_secs(12), a.next())
            .await
            .is_err()
    );
    allowed.store(false, Ordering::SeqCst);
    let last = next(&mut a).await;
    assert_eq!(
        data(&last),
        json!({"reason": "the token is not valid any more"})
    );
    assert!(a.next().await.is_none());
}

/// What happens to a world: records, places at which a subscriber loses its connection.
#[derive(Clone, Debug)]
enum Step {
    Push(usize, Vec<(u8, i64)>),
    Append(usize, Vec<(u8, i64)>),
    Restart(u64),
    Reconnect(usize),
    Read,
}

fn arb_step() -> impl Strategy<Value = Step> {
    let rows = || proptest::collection::vec((0u8..4, 0i64..1_000), 1..4);
    prop_oneof![
        6 => (0usize..2, rows()).prop_map(|(p, r)| Step::Push(p, r)),
        2 => (0usize..2, rows()).prop_map(|(p, r)| Step::Append(p, r)),
        1 => (0u64..3).prop_map(Step::Restart),
        3 => (0usize..3).prop_map(Step::Reconnect),
        2 => Just(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However often they lose the connection, at whatever event, and the server its state: each change is
    /// told once, those of a partition in their order.
    #[test]
    fn every_subscriber_sees_each_change_once(
        steps in proptest::collection::vec(arb_step(), 1..40),
        ring_bytes in prop_oneof![Just(1usize), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(scenario(steps, ring_bytes));
    }
}

/// A subscriber and what it has seen.
struct Seen {
    name: &'static str,
    subscriber: Subscriber,
    place: Position,
    rows: Vec<(u64, String, i64, String)>,
}

impl Seen {
    /// Takes the next event; whether it told a sample. One who is dropped comes back.
    async fn take(&mut self, live: &Live) -> bool {
        let event = next(&mut self.subscriber).await;
        self.place = event.place.clone();
        match event.kind {
            Kind::Samples => self.rows.extend(told(&event)),
            Kind::Dropped => self.come_back(live),
            Kind::Hello | Kind::Heartbeat => {}
            Kind::Gap | Kind::Goodbye => panic!("{event:?}"),
        }
        event.kind == Kind::Samples
    }

    fn come_back(&mut self, live: &Live) {
        self.subscriber = listen(live, named("t", self.name), Some(&self.place));
    }
}

async fn scenario(steps: Vec<Step>, ring_bytes: usize) {
    let world = World::new(2);
    let bounded = LiveOptions {
        ring_bytes,
        chunk_bytes: 200,
        ..options()
    };
    let mut live = feed(&world, bounded.clone());
    let mut all = Vec::new();
    for name in ["s0", "s1", "s0"] {
        let mut subscriber = listen(&live, named("t", name), None);
        let place = next(&mut subscriber).await.place;
        all.push(Seen {
            name,
            subscriber,
            place,
            rows: Vec::new(),
        });
    }
    let mut expect = Vec::new();
    let mut unapplied = [0u64; 2];
    let mut count = 0;
    for step in steps {
        match step {
            Step::Push(partition, rows) | Step::Append(partition, rows) => {
                // Values tell the changes apart.
                let mut samples = Vec::new();
                for (series, at) in rows {
                    count += 1;
                    let name = format!("s{series}");
                    expect.push(row(partition as u64, &name, at, &count.to_string()));
                    samples.push((name, at, f64::from(count)));
                }
                let of: Vec<_> = samples
                    .iter()
                    .map(|(n, t, v)| (n.as_str(), *t, *v))
                    .collect();
                world.append(partition, record("t", &of));
                unapplied[partition] += 1;
                if count % 3 > 0 {
                    world.apply(partition);
                    unapplied[partition] = 0;
                }
            }
            Step::Restart(lost) => {
                let applied = world.position().next;
                let lost = lost.min(applied[&PartitionId(0)].0);
                live.close();
                world.unapply(0, lost);
                live = feed(&world, bounded.clone());
                for seen in &mut all {
                    seen.come_back(&live);
                }
                world.apply(0);
            }
            Step::Reconnect(which) => all[which].come_back(&live),
            Step::Read => {
                world.apply(0);
                world.apply(1);
                let seen = &mut all[0];
                let there = expect.iter().filter(|row| row.1 == seen.name).count();
                while seen.rows.len() < there {
                    if seen.take(&live).await {
                        break;
                    }
                }
            }
        }
    }
    world.apply(0);
    world.apply(1);
    for seen in &mut all {
        let of_name: Vec<_> = expect
            .iter()
            .filter(|r| r.1 == seen.name)
            .cloned()
            .collect();
        while seen.rows.len() < of_name.len() {
            seen.take(&live).await;
        }
        for partition in 0..2 {
            let of = |rows: &[(u64, String, i64, String)]| -> Vec<_> {
                rows.iter()
                    .filter(|row| row.0 == partition)
                    .cloned()
                    .collect()
            };
            assert_eq!(of(&seen.rows), of(&of_name), "{}", seen.name);
        }
    }
    live.close();
}
