//! `millrace demo`: a simulated fleet, so that a newcomer has something to look at.

mod fleet;
pub mod push;

use std::time::{Duration, Instant};

use millrace_log::SystemClock;
use millrace_model::Clock as _;

use crate::cli::DemoArgs;
use crate::failure::Failure;
use fleet::Fleet;
use push::Pusher;

/// Spacing of the backfilled readings: the default scrape interval of Grafana's data source, so
/// that its `rate` windows find enough of them.
const BACKFILL_STEP: Duration = Duration::from_secs(15);

/// Runs the fleet.
///
/// # Errors
///
/// The server cannot be reached, or refuses what the fleet sends.
pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    if args.interval.is_zero() {
        return Err(Failure::Client(
            "--interval must be more than zero, such as 1s".to_owned(),
        ));
    }
    let clock = SystemClock;
    let pusher = Pusher::new(&args.url)?;
    let mut fleet = Fleet::new(args.devices);
    backfill(args, &pusher, &mut fleet, clock.now().0)?;
    crate::print(&advice(args))?;

    let started = Instant::now();
    let mut rounds = 0_u32;
    let mut samples = 0_u64;
    while args
        .run_for
        .is_none_or(|limit| args.interval * rounds < limit)
    {
        wait_until(started + args.interval * rounds);
        let mut readings = Vec::new();
        fleet.advance(args.interval);
        fleet.read(clock.now().0, &mut readings);
        samples += pusher.push(&readings)?;
        rounds += 1;
    }
    crate::print(&format!(
        "{samples} samples of {} devices pushed\n",
        args.devices
    ))
}

fn backfill(args: &DemoArgs, pusher: &Pusher, fleet: &mut Fleet, now: i64) -> Result<(), Failure> {
    let span = i64::try_from(args.backfill.as_millis()).unwrap_or(i64::MAX);
    let step = BACKFILL_STEP.as_millis() as i64;
    let mut readings = Vec::new();
    let mut samples = 0;
    let mut at = now.saturating_sub(span);
    while at < now {
        fleet.advance(BACKFILL_STEP);
        fleet.read(at, &mut readings);
        at += step;
        if readings.len() >= push::READINGS_PER_REQUEST || at >= now {
            samples += pusher.push(&readings)?;
            readings.clear();
        }
    }
    crate::print(&format!(
        "backfilled {samples} samples of {} devices\n",
        args.devices
    ))
}

/// A demo has no condition to wait on: the time of the next reading is one.
fn wait_until(moment: Instant) {
    let pause = moment.saturating_duration_since(Instant::now());
    #[expect(
        clippy::disallowed_methods,
        reason = "the passing of time is what is simulated"
    )]
    std::thread::sleep(pause);
}

fn advice(args: &DemoArgs) -> String {
    let url = args.url.trim_end_matches('/');
    let until = args.run_for.map_or_else(
        || "until Ctrl-C".to_owned(),
        |limit| format!("for {} s", limit.as_secs()),
    );
    format!(
        "pushing on {until}; meanwhile try\n  \
           curl {url}/api/v1/query --data-urlencode 'query=avg by (site) (temperature)'\n  \
           curl {url}/api/v1/query --data-urlencode 'query=topk(3, rate(flow_liters_total[5m]))'\n  \
           millrace query 'sum by (site) (running)' --url {url}\n  \
           in Grafana: a Prometheus data source with the URL {url}, then temperature{{site=\"north\"}}\n"
    )
}
