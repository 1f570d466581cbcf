//! The feed over a queue and a store that the test moves by hand.

mod feed;
mod route;
mod world;

use std::time::Duration;

use millrace_model::{Matcher, TenantId};
use millrace_queue::Position;
use prometheus::Registry;
use serde_json::Value;

use crate::event::{Event, Kind};
use crate::subscriber::Subscriber;
use crate::{Filter, Live, LiveMetrics, LiveOptions};
use world::World;

/// Long enough for a loaded machine, and only waited for by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn options() -> LiveOptions {
    LiveOptions {
        linger: Duration::from_millis(1),
        heartbeat: Duration::from_secs(60),
        ..LiveOptions::default()
    }
}

fn feed(world: &World, options: LiveOptions) -> Live {
    let metrics = LiveMetrics::register(&Registry::new()).unwrap();
    let (records, applied) = (world.clone(), world.clone());
    Live::new(
        options,
        std::sync::Arc::new(records),
        std::sync::Arc::new(applied),
        metrics,
    )
}

/// The series of a tenant whose `series` is `name`.
fn named(tenant: &str, name: &str) -> Filter {
    Filter {
        tenant: tenant.parse::<TenantId>().unwrap(),
        sets: vec![vec![Matcher::equal("series", name)]],
    }
}

fn listen(live: &Live, filter: Filter, from: Option<&Position>) -> Subscriber {
    live.subscribe(filter, from.cloned(), None).unwrap()
}

async fn next(subscriber: &mut Subscriber) -> Event {
    let next = tokio::time::timeout(PATIENCE, subscriber.next()).await;
    next.expect("an event in time").expect("an event")
}

fn data(event: &Event) -> Value {
    serde_json::from_slice(&event.data).unwrap()
}

/// What an event tells: partition, series, timestamp, value.
fn told(event: &Event) -> Vec<(u64, String, i64, String)> {
    let data = data(event);
    let partition = data["partition"].as_u64().unwrap();
    let series = data["series"].as_array().unwrap().iter();
    let of_series = series.flat_map(|series| {
        let name = series["metric"]["series"].as_str().unwrap().to_owned();
        let samples = series["samples"].as_array().unwrap().clone();
        let sample = move |s: Value| {
            let (at, value) = (s[0].as_i64().unwrap(), s[1].as_str().unwrap().to_owned());
            (partition, name.clone(), at, value)
        };
        samples.into_iter().map(sample)
    });
    of_series.collect()
}

/// Reads until `count` samples were told; the events that told them.
async fn read(subscriber: &mut Subscriber, count: usize) -> Vec<Event> {
    let (mut events, mut samples) = (Vec::new(), 0);
    while samples < count {
        let event = next(subscriber).await;
        match event.kind {
            Kind::Samples => {
                samples += told(&event).len();
                events.push(event);
            }
            Kind::Hello | Kind::Heartbeat => {}
            Kind::Gap | Kind::Dropped | Kind::Goodbye => panic!("{event:?}"),
        }
    }
    assert_eq!(samples, count, "{events:?}");
    events
}
