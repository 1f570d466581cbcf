//! Where a request comes from.

use std::net::SocketAddr;

/// One of the addresses at which the process listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listener {
    /// `listen`.
    #[default]
    Main,
    /// `server.admin_listen`.
    Admin,
}

/// Stands in the extensions of every request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    /// By which address it came.
    pub listener: Listener,
    /// The other end of the connection.
    pub peer: Option<SocketAddr>,
}
