//! Asking, and what it takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::Peer;
use super::classes::Class;
use super::feed::Fed;
use super::same;
use crate::client::Client;
use crate::compare::System;
use crate::compare::compacted;
use crate::compare::server::Server;
use crate::process::ThreadTimes;
use crate::values::Random;

/// Longest wait for a server that works for nobody.
const REST_TIMEOUT: Duration = Duration::from_secs(60);
const REST_WINDOW: Duration = Duration::from_millis(500);
/// CPU time in that window below which it rests.
const REST_SECONDS: f64 = 0.02;
/// Most askings of a class in one turn.
const MAX_TURN: usize = 40;

/// What is asked.
#[derive(Debug)]
pub struct Ask<'a> {
    /// All classes.
    pub classes: &'a [Class],
    /// The data.
    pub fed: &'a Fed,
    /// Hosts, devices, pods.
    pub targets: usize,
    /// Of the questions.
    pub seed: u64,
    /// Turns of each system.
    pub rounds: usize,
    /// Length of a turn, about.
    pub turn_ms: u64,
}

/// A class, asked.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Its name.
    pub class: &'static str,
    /// By system, in the systems' order.
    pub systems: Vec<OfSystem>,
}

/// What a class took of one system.
#[derive(Debug, Serialize)]
pub struct OfSystem {
    /// Which.
    pub system: System,
    /// Of each asking, sorted.
    pub latencies_ms: Vec<f64>,
    /// Server CPU time of one asking, on average.
    pub cpu_ms: f64,
    /// The first asking after a start, with the files out of the page cache.
    pub cold_ms: f64,
    /// What is different from millrace's answer, where both should mean the same.
    pub difference: Option<String>,
    /// Whether they should.
    pub compared: bool,
}

/// Waits until a server has everything, and has come to rest.
pub fn settle(peer: &Peer, fed: &Fed) -> Result<()> {
    if peer.system == System::VictoriaMetrics {
        let mut client = Client::new(&peer.server.url())?;
        client.get("/internal/force_flush")?;
    }
    fed.wait_until_visible(&peer.server.url())?;
    rest(&peer.server)
}

fn rest(server: &Server) -> Result<()> {
    let deadline = Instant::now() + REST_TIMEOUT;
    loop {
        let before = ThreadTimes::of(server.pid())?;
        std::thread::sleep(REST_WINDOW);
        if before.seconds_since(server.pid())? < REST_SECONDS || Instant::now() > deadline {
            return Ok(());
        }
    }
}

/// Lets millrace move all samples from memory into blocks, and come to rest.
pub fn seal(server: &mut Server, args: &[String]) -> Result<()> {
    compacted::seal(server, args)?;
    rest(server)
}

/// Asks all classes, cold once, then warm in turns.
pub fn run(ask: &Ask<'_>, peers: &mut [Peer]) -> Result<Vec<Measured>> {
    let mut measured: Vec<Measured> = ask
        .classes
        .iter()
        .map(|class| empty(class, peers))
        .collect();
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.server.restart_cold()?;
        settle(peer, ask.fed)?;
        // Looking whether everything is there has warmed it.
        peer.server.forget_files()?;
        let mut client = Client::new(&peer.server.url())?;
        for (class, measured) in ask.classes.iter().zip(&mut measured) {
            let requests = class.requests(ask.fed, ask.targets, &mut ask.random(class, usize::MAX));
            measured.systems[at].cold_ms = timed(&mut client, &requests)?;
        }
    }
    for (class, measured) in ask.classes.iter().zip(&mut measured) {
        one_class(ask, class, peers, measured).with_context(|| class.name.to_owned())?;
    }
    Ok(measured)
}

fn empty(class: &Class, peers: &[Peer]) -> Measured {
    let system = |peer: &Peer| OfSystem {
        system: peer.system,
        latencies_ms: Vec::new(),
        cpu_ms: 0.0,
        cold_ms: f64::NAN,
        difference: None,
        compared: match peer.system {
            System::Millrace => false,
            System::Prometheus => true,
            System::VictoriaMetrics => class.vm_agrees,
        },
    };
    Measured {
        class: class.name,
        systems: peers.iter().map(system).collect(),
    }
}

fn one_class(ask: &Ask<'_>, class: &Class, peers: &[Peer], measured: &mut Measured) -> Result<()> {
    let mut clients = peers
        .iter()
        .map(|peer| Client::new(&peer.server.url()))
        .collect::<Result<Vec<_>>>()?;
    compare(ask, class, &mut clients, measured)?;
    // So many askings in a turn that the slowest system takes the time of a turn.
    let first = class.requests(ask.fed, ask.targets, &mut ask.random(class, 0));
    let mut slowest: f64 = 0.01;
    for client in &mut clients {
        slowest = slowest.max(timed(client, &first)?);
    }
    let turn = ((ask.turn_ms as f64 / slowest) as usize).clamp(2, MAX_TURN);
    let mut cpu = vec![0.0; peers.len()];
    for round in 0..ask.rounds {
        let mut random = ask.random(class, round + 1);
        let askings: Vec<_> = (0..turn)
            .map(|_| class.requests(ask.fed, ask.targets, &mut random))
            .collect();
        for next in 0..peers.len() {
            let at = (round + next) % peers.len();
            let before = ThreadTimes::of(peers[at].server.pid())?;
            for requests in &askings {
                let ms = timed(&mut clients[at], requests)?;
                measured.systems[at].latencies_ms.push(ms);
            }
            cpu[at] += before.seconds_since(peers[at].server.pid())?;
        }
    }
    for (system, cpu) in measured.systems.iter_mut().zip(cpu) {
        system.latencies_ms.sort_by(f64::total_cmp);
        system.cpu_ms = cpu * 1e3 / system.latencies_ms.len() as f64;
    }
    Ok(())
}

impl Ask<'_> {
    fn random(&self, class: &Class, turn: usize) -> Random {
        let name: u64 = class
            .name
            .bytes()
            .fold(7, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte));
        Random::new(self.seed ^ name << 20 ^ (turn as u64 & 0xffff) << 44)
    }
}

/// Holds the answers of all systems against those of the first, which is millrace where it takes
/// part.
fn compare(
    ask: &Ask<'_>,
    class: &Class,
    clients: &mut [Client],
    measured: &mut Measured,
) -> Result<()> {
    let requests = class.requests(ask.fed, ask.targets, &mut ask.random(class, 0));
    for path in requests {
        let mut answers = Vec::new();
        for client in clients.iter_mut() {
            let answer = client.get(&path)?;
            ensure!(
                answer.status == 200,
                "{} {path}: {}",
                answer.status,
                answer.excerpt()
            );
            answers.push(answer.body);
        }
        for (system, answer) in measured.systems.iter_mut().zip(&answers) {
            if system.compared && system.difference.is_none() {
                system.difference = same::difference(&answers[0], answer, class.tied)?;
                if let Some(text) = &system.difference {
                    eprintln!("  {}: {} differs: {text}", class.name, system.system.name());
                }
            }
        }
    }
    Ok(())
}

/// Milliseconds for all requests, one after the other.
fn timed(client: &mut Client, requests: &[String]) -> Result<f64> {
    let started = Instant::now();
    for path in requests {
        let answer = client.get(path)?;
        if answer.status != 200 {
            bail!("{} {path}: {}", answer.status, answer.excerpt());
        }
    }
    Ok(started.elapsed().as_secs_f64() * 1e3)
}
