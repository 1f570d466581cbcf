//! The load: numbered samples of some devices, each pushed once, whatever came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::PATIENCE;
use super::subscriber::Target;
use crate::support::{Client, eventually, now_ms};

pub const DEVICES: usize = 10;

/// Bytes of a label of the bulk.
const PAD: usize = 1_000;
/// Series of a push of the bulk.
const BULK_SERIES: usize = 400;

pub struct Pushing {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    no_bulk: AtomicBool,
    acknowledged: Mutex<Vec<(usize, u64)>>,
    pushes: AtomicU64,
    bulk_bytes: AtomicU64,
}

impl Pushing {
    pub fn start(target: &Arc<Target>) -> Self {
        let shared = Arc::new(Shared::default());
        let (of_devices, devices) = (shared.clone(), target.clone());
        let (of_bulk, bulk) = (shared.clone(), target.clone());
        let threads = vec![
            std::thread::spawn(move || push_devices(&of_devices, &devices)),
            std::thread::spawn(move || push_bulk(&of_bulk, &bulk)),
        ];
        Self { shared, threads }
    }

    pub fn bulk_bytes(&self) -> u64 {
        self.shared.bulk_bytes.load(Ordering::SeqCst)
    }

    pub fn no_more_bulk(&self) {
        self.shared.no_bulk.store(true, Ordering::SeqCst);
    }

    /// Waits for so many more acknowledged pushes.
    pub fn wait_for(&self, pushes: u64) {
        let now = || self.shared.pushes.load(Ordering::SeqCst);
        let wanted = now() + pushes;
        eventually("pushes", PATIENCE, || {
            (now() >= wanted)
                .then_some(())
                .ok_or(format!("{} of {wanted}", now()))
        });
    }

    /// Device and number of all samples that were acknowledged.
    pub fn stop(self) -> Vec<(usize, u64)> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        std::mem::take(&mut self.shared.acknowledged.lock())
    }
}

/// Pushes once; whether it was acknowledged.
fn push(target: &Target, text: String) -> bool {
    let Some(url) = target.url() else {
        return false;
    };
    let pushed = Client::new(&url).try_post("/api/v1/import/prometheus", &[], text);
    pushed.is_ok_and(|answer| (200..300).contains(&answer.status))
}

fn push_devices(shared: &Shared, target: &Target) {
    let (mut number, mut last) = (0u64, 0);
    while !shared.stop.load(Ordering::SeqCst) {
        last = now_ms().max(last + 1);
        number += 1;
        let line = |device: usize| format!("m{{device=\"d{device}\"}} {number} {last}\n");
        if push(target, (0..DEVICES).map(line).collect()) {
            let mut acknowledged = shared.acknowledged.lock();
            acknowledged.extend((0..DEVICES).map(|device| (device, number)));
            shared.pushes.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn push_bulk(shared: &Shared, target: &Target) {
    let pad = "x".repeat(PAD);
    let (mut number, mut last) = (0u64, 0);
    let ended = || shared.stop.load(Ordering::SeqCst) || shared.no_bulk.load(Ordering::SeqCst);
    while !ended() {
        last = now_ms().max(last + 1);
        let line = |i: usize| {
            format!(
                "bulk{{device=\"d0\",i=\"{i}\",pad=\"{pad}\"}} {} {last}\n",
                number + i as u64
            )
        };
        let text: String = (0..BULK_SERIES).map(line).collect();
        number += BULK_SERIES as u64;
        let bytes = text.len() as u64;
        if push(target, text) {
            shared.bulk_bytes.fetch_add(bytes, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
