//! Sending a plan.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Report;
use super::plan::{Body, Plan};
use crate::client::{Answer, Client};
use crate::process;

/// What a server may ask us to wait at most.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Between two attempts if it says nothing.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Sends all bodies, each connection its own in order; gives up when `deadline` has passed.
pub fn push(plan: &Plan, url: &str, path: &str, deadline: Duration) -> Result<Report> {
    // A wrong address is one error here, not one per request later.
    Client::new(url)?;
    let barrier = Barrier::new(plan.bodies.len() + 1);
    let own = std::process::id();
    std::thread::scope(|scope| {
        let start = |bodies| {
            let barrier = &barrier;
            scope.spawn(move || -> Result<Lane<'_>> {
                let mut lane = Lane::new(Client::new(url)?, plan, path);
                barrier.wait();
                lane.run(bodies, Instant::now() + deadline);
                Ok(lane)
            })
        };
        let threads: Vec<_> = plan.bodies.iter().map(|bodies| start(bodies)).collect();
        let cpu = process::cpu_seconds(own)?;
        barrier.wait();
        let started = Instant::now();
        let lanes = threads
            .into_iter()
            .map(|thread| thread.join().expect("sending does not panic"))
            .collect::<Result<Vec<_>>>()?;
        let seconds = started.elapsed().as_secs_f64();
        let cpu = process::cpu_seconds(own)? - cpu;
        Ok(summarise(lanes, seconds, cpu))
    })
}

struct Lane<'a> {
    client: Client,
    path: &'a str,
    headers: &'static str,
    latencies: Vec<Duration>,
    report: Report,
}

impl<'a> Lane<'a> {
    fn new(client: Client, plan: &Plan, path: &'a str) -> Self {
        Self {
            client,
            path,
            headers: plan.protocol.headers(),
            latencies: Vec::new(),
            report: Report::default(),
        }
    }

    fn run(&mut self, bodies: &[Body], deadline: Instant) {
        for (sent, body) in bodies.iter().enumerate() {
            let started = Instant::now();
            let Some(answer) = self.send(body, deadline) else {
                self.report.unsent = (bodies.len() - sent) as u64;
                return;
            };
            if (200..300).contains(&answer.status) {
                self.report.samples += body.samples;
                self.report.requests += 1;
                self.report.body_bytes += body.bytes.len() as u64;
                self.latencies.push(started.elapsed());
            } else {
                self.report.refused += 1;
                let refusal = || format!("{} {}", answer.status, answer.excerpt());
                self.report.first_problem.get_or_insert_with(refusal);
            }
        }
    }

    /// Until there is an answer that is final; none if the time is up.
    fn send(&mut self, body: &Body, deadline: Instant) -> Option<Answer> {
        loop {
            if Instant::now() >= deadline {
                return None;
            }
            let pause = match self.client.post(self.path, self.headers, &body.bytes) {
                Ok(answer) if matches!(answer.status, 429 | 503) => {
                    self.report.pushed_back += 1;
                    let asked = answer.retry_after.map(Duration::from_secs);
                    asked.unwrap_or(RETRY_AFTER).min(MAX_RETRY_AFTER)
                }
                Ok(answer) => return Some(answer),
                Err(error) => {
                    self.report.broken += 1;
                    let broken = || format!("{error:#}");
                    self.report.first_problem.get_or_insert_with(broken);
                    RETRY_AFTER
                }
            };
            std::thread::sleep(pause);
        }
    }
}

fn summarise(lanes: Vec<Lane<'_>>, seconds: f64, generator_cpu_seconds: f64) -> Report {
    let mut latencies = Vec::new();
    let mut sum = Report {
        seconds,
        generator_cpu_seconds,
        ..Report::default()
    };
    for Lane {
        latencies: of_lane,
        report,
        ..
    } in lanes
    {
        latencies.extend(of_lane);
        sum.samples += report.samples;
        sum.requests += report.requests;
        sum.body_bytes += report.body_bytes;
        sum.pushed_back += report.pushed_back;
        sum.broken += report.broken;
        sum.refused += report.refused;
        sum.unsent += report.unsent;
        sum.first_problem = sum.first_problem.or(report.first_problem);
    }
    latencies.sort();
    sum.samples_per_second = sum.samples as f64 / seconds;
    sum.p50_ms = percentile_ms(&latencies, 50);
    sum.p99_ms = percentile_ms(&latencies, 99);
    sum.max_ms = percentile_ms(&latencies, 100);
    sum
}

/// The smallest that `percent` of all do not exceed.
fn percentile_ms(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted
        .get(rank - 1)
        .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Protocol;
    use crate::load::Check;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let of = |count: u64| (1..=count).map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(percentile_ms(&of(200), 50), 100.0);
        assert_eq!(percentile_ms(&of(200), 99), 198.0);
        assert_eq!(percentile_ms(&of(1), 99), 1.0);
        assert!(percentile_ms(&[], 50).is_nan());
    }

    /// Answers each request on one connection with the next of `answers`; the bodies it got.
    fn serve(answers: Vec<&'static str>) -> (String, std::thread::JoinHandle<Vec<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bodies = Vec::new();
            for answer in answers {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let length = head.split("Content-Length: ").nth(1).unwrap();
                let length = length.split("\r\n").next().unwrap().parse().unwrap();
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                bodies.push(body);
                stream.write_all(answer.as_bytes()).unwrap();
            }
            bodies
        });
        (url, thread)
    }

    #[test]
    fn what_is_pushed_back_is_sent_again_and_what_is_refused_is_not() {
        let (url, server) = serve(vec![
            "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 400 Bad\r\nContent-Length: 4\r\n\r\nnope",
        ]);
        let body = |text: &str| Body {
            bytes: text.as_bytes().to_vec(),
            samples: 1,
        };
        let plan = Plan {
            protocol: Protocol::Line,
            bodies: vec![vec![body("one"), body("two")]],
            series: 1,
            end_ms: 0,
            check: Check {
                metric: String::new(),
                series: 1,
                samples: 2,
                window_seconds: 1,
            },
        };
        let report = push(&plan, &url, "/write", Duration::from_secs(60)).unwrap();
        assert_eq!(server.join().unwrap(), [b"one", b"one", b"two"]);
        assert_eq!(
            (report.samples, report.pushed_back, report.refused),
            (1, 1, 1)
        );
        assert_eq!(report.first_problem.as_deref(), Some("400 nope"));
    }
}
