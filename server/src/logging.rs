//! Where log events go: standard error, one event a line.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::ChronoUtc;

use crate::config::kind::LogFormat;
use crate::config::settings::Log;

/// Installs the process's logger.
pub fn install(log: &Log) {
    let filter = EnvFilter::builder().parse_lossy(&log.level.0);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(ChronoUtc::new("%Y-%m-%dT%H:%M:%S%.3fZ".to_owned()))
        .with_target(false)
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            builder.with_ansi(std::io::stderr().is_terminal()).init();
        }
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
