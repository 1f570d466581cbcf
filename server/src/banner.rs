//! What a start prints for a newcomer.

use std::net::SocketAddr;
use std::path::Path;

/// A few lines: where to push, where to query, where the data lie. The first line ends with the
/// server's URL; scripts may rely on that.
#[must_use]
pub fn text(address: SocketAddr, data_dir: &Path) -> String {
    let url = format!("http://{address}");
    let data = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    format!(
        "millrace {version} listens on {url}\n  \
           push     curl {url}/api/v1/push -d '{{\"device\":\"pump-7\",\"fields\":{{\"temperature\":21.5}}}}'\n  \
           query    curl '{url}/api/v1/query?query=temperature'\n  \
           Grafana  a Prometheus data source with the URL {url}\n  \
           data     {data}\n  \
           more     {url}/ lists all paths; `millrace demo` pushes a simulated fleet; Ctrl-C stops",
        version = env!("CARGO_PKG_VERSION"),
        data = data.display(),
    )
}
