//! Which systems there are, and where.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum as _};

use super::System;

/// Where the systems are, and which of them are wanted.
#[derive(Clone, Debug, Args)]
pub struct Binaries {
    /// The millrace binary
    #[arg(long, default_value = "target/release/millrace")]
    millrace: PathBuf,
    /// The Prometheus binary; left out where it is not installed
    #[arg(long, default_value = "prometheus")]
    prometheus: PathBuf,
    /// The VictoriaMetrics binary; left out where it is not installed
    #[arg(long, default_value = "victoria-metrics")]
    victoria_metrics: PathBuf,
    /// Only these systems
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<System>,
}

impl Binaries {
    /// That of a system.
    pub fn of(&self, system: System) -> &Path {
        match system {
            System::Millrace => &self.millrace,
            System::Prometheus => &self.prometheus,
            System::VictoriaMetrics => &self.victoria_metrics,
        }
    }

    /// Those that are wanted, whether they are there or not.
    pub fn wanted(&self) -> impl Iterator<Item = System> + '_ {
        let all = System::value_variants().iter().copied();
        all.filter(|system| self.only.is_empty() || self.names(*system))
    }

    /// Whether the command line names it.
    pub fn names(&self, system: System) -> bool {
        self.only.contains(&system)
    }
}
