//! A small blocking HTTP/1.1 client that keeps its connection.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

/// Longer than any server here may take for an answer; ends a benchmark that hangs.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The values of a label with a million of them fit; what is longer is a mistake.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// One connection to one server, made when it is needed.
#[derive(Debug)]
pub struct Client {
    authority: String,
    stream: Option<TcpStream>,
    out: Vec<u8>,
    read: Vec<u8>,
}

/// What the server said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text, cut to a line's length.
    pub fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        text.trim().chars().take(200).collect()
    }
}

impl Client {
    /// A client of `http://host:port`.
    pub fn new(url: &str) -> Result<Self> {
        let authority = url
            .strip_prefix("http://")
            .with_context(|| format!("{url:?}: must begin with http://"))?
            .trim_end_matches('/');
        if authority.contains('/') || !authority.contains(':') {
            bail!("{url:?}: must be http://host:port");
        }
        Ok(Self {
            authority: authority.to_owned(),
            stream: None,
            out: Vec::new(),
            read: Vec::new(),
        })
    }

    /// Asks for `path`, with its query.
    pub fn get(&mut self, path: &str) -> Result<Answer> {
        self.request("GET", path, "", &[])
    }

    /// Sends `body` to `path`; `headers` are complete lines.
    pub fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Result<Answer> {
        self.request("POST", path, headers, body)
    }

    fn request(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Result<Answer> {
        let result = self.exchange(method, path, headers, body);
        if result.is_err() {
            self.stream = None;
        }
        result.with_context(|| format!("{method} http://{}{path}", self.authority))
    }

    fn exchange(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Result<Answer> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(connect(&self.authority)?),
        };
        self.out.clear();
        write!(
            self.out,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\n\r\n",
            self.authority,
            body.len()
        )?;
        self.out.extend_from_slice(body);
        stream.write_all(&self.out)?;
        let (answer, keep) = read_answer(stream, &mut self.read)?;
        if !keep {
            self.stream = None;
        }
        Ok(answer)
    }
}

fn connect(authority: &str) -> Result<TcpStream> {
    let address = authority
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| anyhow!("{authority} has no address"))?;
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Reads one answer; whether the connection may be used again.
fn read_answer(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<(Answer, bool)> {
    buffer.clear();
    let head_len = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, buffer)?;
    };
    let head = std::str::from_utf8(&buffer[..head_len])?.to_owned();
    let mut lines = head.split("\r\n");
    let status: u16 = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .with_context(|| format!("no status in {head:?}"))?;
    let (mut length, mut chunked, mut keep, mut retry_after) = (None, false, true, None);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.parse::<usize>()?),
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => keep = !value.eq_ignore_ascii_case("close"),
            "retry-after" => retry_after = value.parse().ok(),
            _ => {}
        }
    }
    let body = if chunked {
        read_chunks(stream, buffer, head_len)?
    } else {
        let no_body = status == 204 || status == 304;
        let length = if no_body { 0 } else { length.unwrap_or(0) };
        while buffer.len() < head_len + length {
            more(stream, buffer)?;
        }
        buffer[head_len..head_len + length].to_vec()
    };
    let answer = Answer {
        status,
        retry_after,
        body,
    };
    Ok((answer, keep))
}

fn read_chunks(stream: &mut impl Read, buffer: &mut Vec<u8>, start: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut at = start;
    loop {
        let line_end = loop {
            if let Some(end) = find(&buffer[at..], b"\r\n") {
                break at + end;
            }
            more(stream, buffer)?;
        };
        let size = std::str::from_utf8(&buffer[at..line_end])?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16)?;
        if body.len() + size > MAX_ANSWER_BYTES {
            bail!("an answer of more than {MAX_ANSWER_BYTES} bytes");
        }
        at = line_end + 2;
        while buffer.len() < at + size + 2 {
            more(stream, buffer)?;
        }
        body.extend_from_slice(&buffer[at..at + size]);
        at += size + 2;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn more(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<()> {
    if buffer.len() > MAX_ANSWER_BYTES {
        bail!("an answer of more than {MAX_ANSWER_BYTES} bytes");
    }
    let mut piece = [0; 64 << 10];
    let read = stream.read(&mut piece)?;
    if read == 0 {
        bail!("the connection ended within an answer");
    }
    buffer.extend_from_slice(&piece[..read]);
    Ok(())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// Escapes text for a query string.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Answer, bool)> {
        // One byte at a time: answers arrive in any pieces.
        struct Trickle<'a>(&'a [u8]);
        impl Read for Trickle<'_> {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                let Some((first, rest)) = self.0.split_first() else {
                    return Ok(0);
                };
                out[0] = *first;
                self.0 = rest;
                Ok(1)
            }
        }
        read_answer(&mut Trickle(text.as_bytes()), &mut Vec::new())
    }

    #[test]
    fn answers_are_read_whatever_their_framing() {
        let (answer, keep) = read("HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!((answer.status, keep), (204, true));
        let (answer, keep) = read(
            "HTTP/1.1 503 x\r\nretry-after: 3\r\nConnection: close\r\ncontent-length: 2\r\n\r\nhi",
        )
        .unwrap();
        assert_eq!((answer.retry_after, keep), (Some(3), false));
        assert_eq!(answer.excerpt(), "hi");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(read(chunked).unwrap().0.excerpt(), "abcde");
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        assert!(read("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc").is_err());
        assert!(read("HTTP/1.1 20").is_err());
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(percent_encode("a{b=\"c\"}"), "a%7Bb%3D%22c%22%7D");
    }
}
