//! A subscriber over a plain socket, by server-sent events or as a WebSocket, that comes back where it was.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpSocket;

use crate::support::escape;

/// Where the server is now.
pub struct Target(Mutex<Option<String>>);

impl Target {
    pub fn new(url: &str) -> Self {
        Self(Mutex::new(Some(url.to_owned())))
    }

    pub fn serve(&self, url: &str) {
        *self.0.lock() = Some(url.to_owned());
    }

    pub fn gone(&self) {
        *self.0.lock() = None;
    }

    pub fn url(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ServerSent,
    WebSocket,
}

/// What a subscriber has seen.
pub struct Seen {
    pub device: usize,
    /// How often each number was told.
    counts: Mutex<BTreeMap<u64, u32>>,
    place: Mutex<Option<String>>,
    hellos: AtomicU64,
    dropped: AtomicU64,
    goodbyes: AtomicU64,
    stalls: AtomicBool,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.lock();
        f.debug_struct("Seen")
            .field("device", &self.device)
            .field("numbers", &counts.len())
            .field("told", &counts.values().sum::<u32>())
            .field("place", &*self.place.lock())
            .field("hellos", &self.hellos())
            .field("dropped", &self.dropped())
            .field("goodbyes", &self.goodbyes())
            .finish_non_exhaustive()
    }
}

impl Seen {
    pub fn new(device: usize) -> Self {
        Self {
            device,
            counts: Mutex::default(),
            place: Mutex::default(),
            hellos: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            goodbyes: AtomicU64::new(0),
            stalls: AtomicBool::new(false),
        }
    }

    pub fn stall(&self, stalls: bool) {
        self.stalls.store(stalls, Ordering::SeqCst);
    }

    pub fn counts(&self) -> BTreeMap<u64, u32> {
        self.counts.lock().clone()
    }

    pub fn hellos(&self) -> u64 {
        self.hellos.load(Ordering::SeqCst)
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::SeqCst)
    }

    pub fn goodbyes(&self) -> u64 {
        self.goodbyes.load(Ordering::SeqCst)
    }

    fn note(&self, kind: &str, place: &str, data: &Value) {
        match kind {
            "hello" => self.hellos.fetch_add(1, Ordering::SeqCst),
            "dropped" => self.dropped.fetch_add(1, Ordering::SeqCst),
            "goodbye" => self.goodbyes.fetch_add(1, Ordering::SeqCst),
            "samples" => {
                let mut counts = self.counts.lock();
                for series in data["series"].as_array().unwrap() {
                    for sample in series["samples"].as_array().unwrap() {
                        let number = sample[1].as_str().unwrap().parse().unwrap();
                        *counts.entry(number).or_default() += 1;
                    }
                }
                0
            }
            "heartbeat" => 0,
            other => panic!("{other}: {data}"),
        };
        *self.place.lock() = Some(place.to_owned());
    }
}

/// Listens for ever, and comes back whenever the connection ends.
pub async fn listen(target: Arc<Target>, kind: Kind, selector: String, seen: Arc<Seen>) {
    loop {
        if let Some(url) = target.url() {
            // How it ended does not matter: it goes on where it was.
            let _ended = once(&url, kind, &selector, &seen).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn once(url: &str, kind: Kind, selector: &str, seen: &Seen) -> io::Result<()> {
    let address = url.trim_start_matches("http://");
    let socket = TcpSocket::new_v4()?;
    if seen.stalls.load(Ordering::SeqCst) {
        socket.set_recv_buffer_size(4 << 10)?;
    }
    let mut stream = socket.connect(address.parse().unwrap()).await?;
    let place = seen.place.lock().clone().unwrap_or_default();
    let path = format!("/api/v1/live?match[]={}", escape(selector));
    let more = match kind {
        Kind::ServerSent => format!("last-event-id: {place}\r\n"),
        Kind::WebSocket => {
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                .to_owned()
        }
    };
    let path = match kind {
        Kind::ServerSent => path,
        Kind::WebSocket => format!("{path}&position={}", escape(&place)),
    };
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let expect = match kind {
        Kind::ServerSent => "HTTP/1.1 200 ",
        Kind::WebSocket => "HTTP/1.1 101 ",
    };
    if !line.starts_with(expect) {
        assert!(
            line.is_empty() || line.starts_with("HTTP/1.1 503 "),
            "{line}"
        );
        return Ok(());
    }
    while line.trim_end() != "" {
        line.clear();
        reader.read_line(&mut line).await?;
    }
    match kind {
        Kind::ServerSent => events(reader, seen).await,
        Kind::WebSocket => messages(reader, seen).await,
    }
}

type Reader = BufReader<tokio::net::TcpStream>;

/// Reads chunks, and the events in them.
async fn events(mut reader: Reader, seen: &Seen) -> io::Result<()> {
    let (mut text, mut line) = (Vec::new(), String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let from = text.len();
        text.resize(from + length + 2, 0);
        reader.read_exact(&mut text[from..]).await?;
        text.truncate(from + length);
        if length == 0 {
            return Ok(());
        }
        if !text.ends_with(b"\n\n") {
            continue;
        }
        let event = std::str::from_utf8(&text).unwrap();
        let field = |name: &str| {
            let mut lines = event.lines();
            lines.find_map(|line| line.strip_prefix(name)).unwrap()
        };
        let data = serde_json::from_str(field("data: ")).unwrap();
        seen.note(field("event: "), field("id: "), &data);
        text.clear();
        while seen.stalls.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Reads frames of a WebSocket (RFC 6455), which a server sends whole and unmasked.
async fn messages(mut reader: Reader, seen: &Seen) -> io::Result<()> {
    const TEXT: u8 = 0x81;
    const CLOSE: u8 = 0x88;
    loop {
        let head = [reader.read_u8().await?, reader.read_u8().await?];
        let length = match head[1] {
            126 => usize::from(reader.read_u16().await?),
            127 => reader.read_u64().await? as usize,
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload).await?;
        match head[0] {
            TEXT => {}
            CLOSE => return Ok(()),
            other => panic!("a frame of kind {other:#x}"),
        }
        let message: Value = serde_json::from_slice(&payload).unwrap();
        let text = |name: &str| message[name].as_str().unwrap().to_owned();
        seen.note(&text("event"), &text("id"), &message["data"]);
    }
}
