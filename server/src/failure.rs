//! Why the program ends, what it says, and the exit code (those of `sysexits.h`, as far as they
//! fit, so that a supervisor can tell "wait and try again" from "a person must look").

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::ConfigError;

/// Why a command did not succeed. The message is one line and says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The data directory cannot be made or written.
    #[error(
        "data directory {path:?} cannot be used: {source}; choose another one with --data-dir, \
         or make it writable for this user"
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has the data directory.
    #[error(
        "data directory {path:?} is in use by another millrace ({holder}); stop that one, or \
         choose another directory with --data-dir"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// What the other one wrote about itself.
        holder: String,
    },
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}; {}", listen_hint(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The queue on Kafka is not what the configuration asks for.
    #[error("{0}")]
    Refused(String),
    /// The queue or the store does not open.
    #[error("{0}")]
    Data(String),
    /// The system refuses something that every start needs.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Not everything could be put in order at the end.
    #[error("the shutdown was not clean: {0}; what was acknowledged is in the queue all the same")]
    Shutdown(String),
    /// A server does not answer, or not as it should.
    #[error("{0}")]
    Client(String),
}

impl Failure {
    /// The process's exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Refused(_) => 78,
            Self::Locked { .. } => 75,
            Self::DataDir { .. } => 73,
            Self::Listen { .. } | Self::Client(_) => 69,
            Self::Data(_) => 65,
            Self::System { .. } => 71,
            Self::Shutdown(_) => 74,
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.code())
    }
}

fn listen_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has the port: choose another one with --listen, or stop it"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege: choose a higher one with --listen"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address: choose another one with --listen"
        }
        _ => "choose another address with --listen",
    }
}
