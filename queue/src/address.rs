//! What is written as `host:port`.

/// Whether the text is a host and a port that somebody could listen on, and nothing else: no path,
/// no user, no blank. IPv6 addresses stand in brackets.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_is_one = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(letter)
        }
    };
    host_is_one && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_else() {
        for good in [
            "a:1",
            "10.0.0.1:9009",
            "s-0.store_x.example:65535",
            "[::1]:80",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "a",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:-1",
            "a/b:1",
            "u@a:1",
            "a b:1",
            "::1:80",
            "[a]:1",
            "a:1/x",
            "http://a:1",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
