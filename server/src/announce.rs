//! Tells query processes where this store is, for as long as it runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_log::fs::Fs;
use millrace_queue::kafka::{Announcement, Announcer};
use millrace_store::Store;
use parking_lot::Mutex;
use prometheus::IntGauge;
use tracing::{error, info, warn};

use crate::app::App;
use crate::config::Config;
use crate::config::kind::Advertise;
use crate::failure::Failure;
use crate::fleet::replica_name;
use crate::queue::kafka;

/// An announcement that is repeated until it is taken back.
pub struct Announced(Mutex<Option<(Sender<()>, JoinHandle<()>)>>);

/// Begins to announce the store, unless the configuration says that nobody needs that.
///
/// # Errors
///
/// Settings that librdkafka refuses; no thread can be started; a metric that is registered already.
pub fn start(
    app: &App,
    fs: &dyn Fs,
    config: &Config,
    store: &Arc<Store>,
    listening: SocketAddr,
) -> Result<Option<Announced>, Failure> {
    let Some(address) = address(&config.cluster.advertise, listening) else {
        return Ok(None);
    };
    let metrics = |error: prometheus::Error| Failure::Data(format!("metrics: {error}"));
    let standing = IntGauge::new(
        "millrace_fleet_announced",
        "1 if the brokers have taken this store's last announcement.",
    )
    .map_err(metrics)?;
    app.registry
        .register(Box::new(standing.clone()))
        .map_err(metrics)?;
    let interval = config.cluster.announce_interval;
    let announcement = Announcement {
        address,
        name: replica_name(config),
        ordinal: config.cluster.ordinal,
        nodes: config.cluster.nodes,
        queue: store.identity().id,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        started: app.clock.now(),
        // Three may be lost, and one late.
        life: interval * 7 / 2,
    };
    let options = kafka::options(fs, config)?;
    let announcer =
        Announcer::start(&options).map_err(|error| Failure::Refused(error.to_string()))?;
    let (stop, stopped) = channel();
    let thread = std::thread::Builder::new()
        .name("announce".to_owned())
        .spawn(move || repeat(&announcer, &announcement, interval, &stopped, &standing))
        .map_err(|source| Failure::System {
            what: "the thread that announces the store cannot be started",
            source,
        })?;
    Ok(Some(Announced(Mutex::new(Some((stop, thread))))))
}

impl Announced {
    /// Takes the announcement back, and waits for that: 10 s at most, if the brokers are away.
    pub fn withdraw(&self) {
        let Some((stop, thread)) = self.0.lock().take() else {
            return;
        };
        // The thread ends by that as well.
        drop(stop);
        if thread.join().is_err() {
            error!("the thread that announces the store panicked");
        }
    }
}

/// The address to announce; `None` if there is none.
fn address(advertise: &Advertise, listening: SocketAddr) -> Option<String> {
    match advertise {
        Advertise::Address(address) => Some(address.clone()),
        Advertise::Never => None,
        Advertise::Auto if listening.ip().is_unspecified() => {
            warn!(
                %listening,
                "this store listens on all addresses of the machine and is not announced, since none \
                 of them is known to be the one at which query processes reach it: set \
                 cluster.advertise to that, or to none"
            );
            None
        }
        Advertise::Auto => Some(listening.to_string()),
    }
}

fn repeat(
    announcer: &Announcer,
    announcement: &Announcement,
    interval: Duration,
    stopped: &Receiver<()>,
    standing: &IntGauge,
) {
    let address = announcement.address.as_str();
    let mut stands = None;
    loop {
        let announced = announcer.announce(announcement);
        standing.set(i64::from(announced.is_ok()));
        match (&announced, stands) {
            (Ok(()), Some(true)) | (Err(_), Some(false)) => {}
            (Ok(()), _) => info!(address, "the store is announced"),
            (Err(error), _) => {
                warn!(address, %error, "the store cannot be announced; it is tried again");
            }
        }
        stands = Some(announced.is_ok());
        match stopped.recv_timeout(interval) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Err(error) = announcer.withdraw(address) {
        warn!(address, %error, "the announcement was not taken back; it is forgotten in a while");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_where_others_reach_the_store() {
        let listening: SocketAddr = "10.0.0.7:9009".parse().unwrap();
        let all: SocketAddr = "0.0.0.0:9009".parse().unwrap();
        let given = Advertise::Address("s:1".to_owned());
        let auto = Some("10.0.0.7:9009".to_owned());
        assert_eq!(address(&Advertise::Auto, listening), auto);
        assert_eq!(address(&Advertise::Auto, all), None);
        assert_eq!(address(&given, all), Some("s:1".to_owned()));
        assert_eq!(address(&Advertise::Never, listening), None);
    }
}
