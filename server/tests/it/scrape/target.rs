//! Small HTTP servers that are scraped: they can say something else, die and come back.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request: path with query, and headers with names in lower case.
pub struct Asked {
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map_or("", |(_, value)| value)
    }
}

/// What is answered: status line, content type, body.
pub type Said = (&'static str, &'static str, String);

pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub fn ok(content_type: &'static str, body: impl Into<String>) -> Said {
    ("200 OK", content_type, body.into())
}

type Handler = Arc<dyn Fn(&Asked) -> Said + Send + Sync>;

/// A target. Dies when dropped.
pub struct Target {
    pub address: SocketAddr,
    handler: Handler,
    tls: Option<Arc<ServerConfig>>,
    running: Option<Running>,
}

struct Running {
    stopping: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    accepting: JoinHandle<()>,
}

impl Target {
    /// Lives at a free port.
    pub fn start(handler: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Self {
        let any = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0);
        Self::start_at(any, Arc::new(handler), None)
    }

    /// The same, by TLS.
    pub fn start_tls(
        tls: Arc<ServerConfig>,
        handler: impl Fn(&Asked) -> Said + Send + Sync + 'static,
    ) -> Self {
        let any = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0);
        Self::start_at(any, Arc::new(handler), Some(tls))
    }

    fn start_at(address: SocketAddr, handler: Handler, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let mut target = Self {
            address: listener.local_addr().unwrap(),
            handler,
            tls,
            running: None,
        };
        target.accept(listener);
        target
    }

    /// Other addresses of this machine where it answers too.
    pub fn also_at(&self, last: u8) -> Self {
        let address = SocketAddr::new(IpAddr::from([127, 0, 0, last]), 0);
        Self::start_at(address, self.handler.clone(), self.tls.clone())
    }

    fn accept(&mut self, listener: TcpListener) {
        let stopping = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(Vec::new()));
        let (stop, streams, handler) = (stopping.clone(), open.clone(), self.handler.clone());
        let tls = self.tls.clone();
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                let (handler, tls) = (handler.clone(), tls.clone());
                // The client decides when a connection ends, or death does.
                std::thread::spawn(move || match tls {
                    None => drop(serve(stream, &handler)),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).unwrap();
                        drop(serve(StreamOwned::new(connection, stream), &handler));
                    }
                });
            }
        });
        self.running = Some(Running {
            stopping,
            open,
            accepting,
        });
    }

    /// Nobody is at its address any more.
    pub fn die(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        running.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        running.accepting.join().unwrap();
        for stream in running.open.lock().unwrap().drain(..) {
            // It may be closed already.
            let _closed = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// It is at its address again.
    pub fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.accept(listener);
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.die();
    }
}

fn serve(stream: impl Read + Write, handler: &Handler) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let path = lines[0].split(' ').nth(1).unwrap_or_default().to_owned();
        let headers = lines[1..].iter().filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        let asked = Asked {
            path,
            headers: headers.collect(),
        };
        let (status, content_type, body) = handler(&asked);
        let gzip = asked.header("accept-encoding").contains("gzip");
        let (encoding, body) = match gzip {
            true => ("content-encoding: gzip\r\n", zipped(&body)),
            false => ("", body.into_bytes()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{encoding}content-length: {}\r\n\r\n",
            body.len()
        );
        let stream = reader.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(&body)?;
        stream.flush()?;
    }
}

fn zipped(body: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}
