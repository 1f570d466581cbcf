//! Clients of the plainest kind, so that the load costs little beside the server.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What the server said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub body: String,
}

/// A client with one connection, opened again when it has ended.
#[derive(Debug)]
pub struct Raw {
    address: String,
    stream: Option<TcpStream>,
}

impl Raw {
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            stream: None,
        }
    }

    /// An error means that the outcome is unknown.
    pub fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(&self.address)?,
        };
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: millrace\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        // A server that refuses before the end of the body may close: its answer is read all the same.
        let written = stream.write_all(&request);
        let (answer, close) = read_answer(&mut stream)?;
        if !close && written.is_ok() {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// An answer, and whether the connection ends with it.
fn read_answer(stream: &mut TcpStream) -> io::Result<(Answer, bool)> {
    let mut bytes = Vec::new();
    let mut some = [0; 4096];
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut some)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&some[..n]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let header = |name: &str| {
        let mut lines = head.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(|value| value.trim().to_owned())
    };
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status: u16 = status.ok_or_else(bad)?;
    let length: usize = match header("content-length") {
        Some(length) => length.parse().map_err(|_| bad())?,
        None => 0,
    };
    while bytes.len() < head_end + length {
        match stream.read(&mut some)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&some[..n]),
        }
    }
    let answer = Answer {
        status,
        retry_after: header("retry-after").and_then(|seconds| seconds.parse().ok()),
        body: String::from_utf8_lossy(&bytes[head_end..]).into_owned(),
    };
    Ok((answer, header("connection").as_deref() == Some("close")))
}

/// A client that drips, connecting again when it is cut.
#[derive(Debug)]
pub struct Slow {
    address: String,
    stream: Option<TcpStream>,
    /// What is sent at once; the rest comes byte by byte.
    begins: &'static str,
}

impl Slow {
    /// One that drips the head of its request, or the body.
    pub fn new(address: &str, head: bool) -> Self {
        Self {
            address: address.to_owned(),
            stream: None,
            begins: if head {
                "POST /write HTTP/1.1\r\nx-long: "
            } else {
                "POST /write HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n"
            },
        }
    }

    /// Sends a byte; whether the server has cut the connection.
    pub fn drip(&mut self) -> bool {
        let Some(stream) = &mut self.stream else {
            if let Ok(mut stream) = TcpStream::connect(&self.address)
                && stream.write_all(self.begins.as_bytes()).is_ok()
                && stream.set_nonblocking(true).is_ok()
            {
                self.stream = Some(stream);
            }
            return false;
        };
        let sent = stream.write(b"a");
        let ended = match stream.read(&mut [0; 512]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        let cut = ended || sent.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock);
        if cut {
            self.stream = None;
        }
        cut
    }
}
