//! millrace on Kafka beside its embedded queue, on this machine: what a sample costs, and how fast a
//! store reads what was written while it was away.
//!
//! A single broker is started by the repository's script. Its topics sync every record, as the
//! embedded queue does, so both give the same promise. CPU time of millrace and of the broker are
//! taken apart; rounds are interleaved, so that what disturbs the machine disturbs both.

mod broker;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::compare::System;
use crate::compare::round::{Probe, wait_for_rest};
use crate::compare::server::Server;
use crate::load::{LoadSpec, Plan, Report, now_ms, push};
use crate::process::{cpu_seconds, threads_cpu_seconds};
use broker::Broker;

/// What a sample through Kafka may cost: so much of the embedded queue's samples per CPU second.
const COST_BAR: f64 = 0.8;
/// How the threads that apply records to the store are called.
const STORE_THREADS: &str = "store-";
/// How much faster than it was written a backlog must be read.
const CATCH_UP_BAR: f64 = 3.0;

/// Measure millrace on Kafka.
#[derive(Debug, Args)]
pub struct KafkaArgs {
    /// The millrace binary
    #[arg(long, default_value = "target/release/millrace")]
    millrace: PathBuf,
    /// The script that starts a broker; it takes Java 17 and Maven
    #[arg(long, default_value = "queue/tests/kafka/kafka")]
    kafka: PathBuf,
    /// Further arguments for millrace, such as --set=key=value
    #[arg(long = "millrace-arg", allow_hyphen_values = true)]
    millrace_args: Vec<String>,
    /// How often each is run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Partitions of either queue
    #[arg(long, default_value_t = 2)]
    partitions: u32,
    /// Where directories are made, and removed; on a real disk
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work_dir: PathBuf,
    /// Print all figures as JSON instead of the tables
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    spec: LoadSpec,
}

/// All parts in one process under the load, until everything was applied and it was at rest.
#[derive(Clone, Debug, Serialize)]
struct Ingested {
    load: Report,
    /// Of millrace until the last acknowledgement.
    cpu_of_load: f64,
    /// Of that what the threads that apply to the store took.
    cpu_of_store: f64,
    /// Of millrace until it was at rest.
    cpu: f64,
    /// Of the broker in the same time.
    broker_cpu: Option<f64>,
}

impl Ingested {
    fn per_cpu_second(&self) -> f64 {
        self.load.samples as f64 / self.cpu
    }

    /// Without the store: from the producer to the acknowledgement.
    fn ingest_per_cpu_second(&self) -> f64 {
        self.load.samples as f64 / (self.cpu_of_load - self.cpu_of_store)
    }
}

/// A load written by ingest alone, and then read by a store that was not there.
#[derive(Clone, Debug, Serialize)]
struct CaughtUp {
    load: Report,
    ingest_cpu: f64,
    ingest_broker_cpu: f64,
    /// From the store's start on an empty directory until it was ready: all of it applied.
    seconds: f64,
    store_cpu: f64,
    store_broker_cpu: f64,
}

impl CaughtUp {
    fn rate(&self) -> f64 {
        self.load.samples as f64 / self.seconds
    }

    fn ingest_per_cpu_second(&self) -> f64 {
        self.load.samples as f64 / self.ingest_cpu
    }

    fn times_faster(&self) -> f64 {
        self.rate() / self.load.samples_per_second
    }
}

#[derive(Debug, Default, Serialize)]
struct Measured {
    embedded: Vec<Ingested>,
    kafka: Vec<Ingested>,
    caught_up: Vec<CaughtUp>,
}

/// Runs the command.
pub fn main(args: &KafkaArgs) -> Result<()> {
    let plan = Plan::build(&args.spec, now_ms());
    eprintln!("{plan}");
    let broker = Broker::start(&args.kafka, &args.millrace, &args.work_dir)?;
    let mut measured = Measured::default();
    for number in 0..args.rounds {
        // Another one first each time.
        for half in [number % 2, (number + 1) % 2] {
            let (name, of) = match half {
                0 => ("embedded", None),
                _ => ("kafka", Some(&broker)),
            };
            let round = ingest(args, &plan, of, number)
                .with_context(|| format!("round {}, {name}", number + 1))?;
            eprintln!(
                "round {}, {name}: {:.0} samples per CPU second",
                number + 1,
                round.per_cpu_second()
            );
            match of {
                None => measured.embedded.push(round),
                Some(_) => measured.kafka.push(round),
            }
        }
        let round = catch_up(args, &plan, &broker, number)
            .with_context(|| format!("round {}, catching up", number + 1))?;
        eprintln!(
            "round {}, catching up: {:.1} times as fast as it was written",
            number + 1,
            round.times_faster()
        );
        measured.caught_up.push(round);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        let command: Vec<_> = std::env::args().skip(1).collect();
        println!("`millrace-bench {}`", command.join(" "));
        println!("{plan}\n");
        print!("{}", tables(&measured));
    }
    Ok(())
}

fn ingest(args: &KafkaArgs, plan: &Plan, broker: Option<&Broker>, number: u32) -> Result<Ingested> {
    let dir = tempfile::tempdir_in(&args.work_dir)?;
    let mut more = args.millrace_args.clone();
    match broker {
        Some(broker) => more.extend(broker.topic(&format!("all-{number}"), args.partitions)?),
        None => more.push(format!("--set=queue.partitions={}", args.partitions)),
    }
    let mut server = Server::start(System::Millrace, &args.millrace, &more, dir.path())?;
    let broker_cpu = || broker.map(Broker::cpu_seconds).transpose();
    let (before, broker_before) = (cpu_seconds(server.pid())?, broker_cpu()?);
    let load = pushed(args, plan, &server)?;
    let cpu_of_load = cpu_seconds(server.pid())? - before;
    let cpu_of_store = threads_cpu_seconds(server.pid(), STORE_THREADS)?;
    Probe::new(&server.url())?.wait_for_load(&mut server, &plan.check, plan.end_ms)?;
    let cpu = wait_for_rest(server.pid())? - before;
    let broker_cpu = broker_cpu()?
        .zip(broker_before)
        .map(|(now, then)| now - then);
    Ok(Ingested {
        load,
        cpu_of_load,
        cpu_of_store,
        cpu,
        broker_cpu,
    })
}

fn catch_up(args: &KafkaArgs, plan: &Plan, broker: &Broker, number: u32) -> Result<CaughtUp> {
    let topic = broker.topic(&format!("backlog-{number}"), args.partitions)?;
    let of_role = |role: &str, dir: &Path| {
        let mut more = args.millrace_args.clone();
        more.extend(topic.iter().cloned());
        more.push(format!("--set=roles={role}"));
        Server::start(System::Millrace, &args.millrace, &more, dir)
    };
    let dir = tempfile::tempdir_in(&args.work_dir)?;
    let ingest = of_role("ingest", dir.path())?;
    let (before, broker_before) = (cpu_seconds(ingest.pid())?, broker.cpu_seconds()?);
    let load = pushed(args, plan, &ingest)?;
    let ingest_cpu = cpu_seconds(ingest.pid())? - before;
    let ingest_broker_cpu = broker.cpu_seconds()? - broker_before;
    drop(ingest);

    let dir = tempfile::tempdir_in(&args.work_dir)?;
    let (begun, broker_before) = (Instant::now(), broker.cpu_seconds()?);
    // It is ready once it has applied all that there was when it started.
    let store = of_role("store", dir.path())?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(CaughtUp {
        load,
        ingest_cpu,
        ingest_broker_cpu,
        seconds,
        store_cpu: cpu_seconds(store.pid())?,
        store_broker_cpu: broker.cpu_seconds()? - broker_before,
    })
}

fn pushed(args: &KafkaArgs, plan: &Plan, server: &Server) -> Result<Report> {
    let deadline = Duration::from_secs(args.spec.max_seconds);
    let load = push(plan, &server.url(), plan.protocol.path(), deadline)?;
    ensure!(
        load.refused == 0 && load.unsent == 0,
        "{} requests were refused, {} not sent: {}",
        load.refused,
        load.unsent,
        load.first_problem.as_deref().unwrap_or("time was up")
    );
    Ok(load)
}

fn tables(measured: &Measured) -> String {
    let mut text = String::from(
        "All parts in one process:\n\n| queue | round | M samples/s | CPU s until acknowledged | of that the \
         store | CPU s in all | M samples per CPU s | broker's CPU s | p99 ms |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (name, rounds) in [("embedded", &measured.embedded), ("Kafka", &measured.kafka)] {
        for (number, round) in rounds.iter().enumerate() {
            let broker = round
                .broker_cpu
                .map_or("-".to_owned(), |cpu| format!("{cpu:.2}"));
            text.push_str(&format!(
                "| {name} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.3} | {broker} | {:.1} |\n",
                number + 1,
                round.load.samples_per_second / 1e6,
                round.cpu_of_load,
                round.cpu_of_store,
                round.cpu,
                round.per_cpu_second() / 1e6,
                round.load.p99_ms
            ));
        }
    }
    let costs = |rounds: &[Ingested]| median(rounds.iter().map(Ingested::per_cpu_second));
    text.push_str(&format!(
        "\nMedian samples per CPU second, all parts, Kafka by embedded: {:.0} %.\n",
        costs(&measured.kafka) / costs(&measured.embedded) * 100.0
    ));
    let embedded = median(
        measured
            .embedded
            .iter()
            .map(Ingested::ingest_per_cpu_second),
    );
    let kafka = median(
        measured
            .caught_up
            .iter()
            .map(CaughtUp::ingest_per_cpu_second),
    );
    text.push_str(&format!(
        "From the producer to the acknowledgement (the process with the role ingest below, by the \
         embedded one without its store threads): **{:.0} %** (at least {:.0} %).\n\nIngest alone, and a store \
         that comes later:\n\n",
        kafka / embedded * 100.0,
        COST_BAR * 100.0
    ));
    text.push_str(
        "| round | written, M samples/s | ingest's CPU s | broker's | read, M samples/s | store's CPU s | \
         broker's | times faster |\n|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (number, round) in measured.caught_up.iter().enumerate() {
        text.push_str(&format!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} |\n",
            number + 1,
            round.load.samples_per_second / 1e6,
            round.ingest_cpu,
            round.ingest_broker_cpu,
            round.rate() / 1e6,
            round.store_cpu,
            round.store_broker_cpu,
            round.times_faster()
        ));
    }
    let faster = median(measured.caught_up.iter().map(CaughtUp::times_faster));
    text.push_str(&format!(
        "\nMedian: **{faster:.1} times** as fast as it was written (at least {CATCH_UP_BAR:.0}).\n"
    ));
    text
}

/// The middle one; of an even number the mean of both.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        None => f64::NAN,
        Some(upper) if sorted.len() % 2 == 1 => *upper,
        Some(upper) => (sorted[middle - 1] + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!(median([].into_iter()).is_nan());
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }

    #[test]
    fn tables_tell_both_ratios() {
        let load = Report {
            samples: 8_000_000,
            samples_per_second: 1e6,
            ..Report::default()
        };
        let ingested = |cpu: f64, broker_cpu| Ingested {
            load: load.clone(),
            cpu_of_load: cpu,
            cpu_of_store: 0.8,
            cpu,
            broker_cpu,
        };
        let text = tables(&Measured {
            embedded: vec![ingested(4.0, None)],
            kafka: vec![ingested(5.0, Some(9.0))],
            caught_up: vec![CaughtUp {
                load: load.clone(),
                ingest_cpu: 4.0,
                ingest_broker_cpu: 1.0,
                seconds: 2.0,
                store_cpu: 2.0,
                store_broker_cpu: 1.0,
            }],
        });
        assert!(
            text.contains("**80 %**") && text.contains("**4.0 times**"),
            "{text}"
        );
    }
}
