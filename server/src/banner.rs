//! What a start prints for a newcomer.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::kind::Roles;

/// What it tells of.
pub struct Start<'a> {
    /// Where the server listens.
    pub address: SocketAddr,
    /// Whether by TLS.
    pub tls: bool,
    /// The address of administrative routes, if it is another one, and whether by TLS.
    pub admin: Option<(SocketAddr, bool)>,
    /// Whether tokens are asked for.
    pub tokens: bool,
    /// Which parts run.
    pub roles: Roles,
    /// Where the data lie, if there are any.
    pub data_dir: Option<&'a Path>,
}

/// A few lines: where to push, where to query, where the data lie. The first line ends with the
/// server's URL; scripts may rely on that.
#[must_use]
pub fn text(start: &Start<'_>) -> String {
    let Start {
        address,
        tls,
        admin,
        tokens,
        roles,
        data_dir,
    } = *start;
    let scheme = |tls| if tls { "https" } else { "http" };
    let url = format!("{}://{address}", scheme(tls));
    let mut lines = vec![format!(
        "millrace {} listens on {url}",
        env!("CARGO_PKG_VERSION")
    )];
    if roles != Roles::ALL {
        lines.push(format!("  roles    {}", roles.names().join(", ")));
    }
    if roles.ingest {
        lines.push(format!(
            "  push     curl {url}/api/v1/push -d '{{\"device\":\"pump-7\",\"fields\":{{\"temperature\":21.5}}}}'"
        ));
    }
    if roles.query {
        lines.push(format!(
            "  query    curl '{url}/api/v1/query?query=temperature'"
        ));
        lines.push(format!(
            "  Grafana  a Prometheus data source with the URL {url}"
        ));
    }
    if let Some(dir) = data_dir {
        let data = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        lines.push(format!("  data     {}", data.display()));
    }
    if let Some((admin, tls)) = admin {
        lines.push(format!("  admin    {}://{admin}", scheme(tls)));
    }
    if tokens {
        lines.push("  tokens   asked for; `millrace token create` makes one".to_owned());
    }
    lines.push(format!(
        "  more     {url}/ lists all paths; `millrace demo` pushes a simulated fleet; Ctrl-C stops"
    ));
    lines.join("\n")
}
