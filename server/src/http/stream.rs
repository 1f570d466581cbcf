//! The socket of a connection under its timers.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::limits::HttpLimits;
use super::pace::Pace;

/// What a connection is doing. The stream sees bytes, the service sees requests; they meet here.
#[derive(Debug)]
pub struct ConnectionState {
    phase: Mutex<Phase>,
    /// The connection's task.
    task: AtomicWaker,
    /// Part of a body may still be on its way.
    unread: AtomicBool,
    /// Requests run beside one another: HTTP/2.
    multiplexed: AtomicBool,
    /// How many more requests were abandoned than answered.
    abandoned: AtomicU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Part of a head is there, or the connection is new.
    Head {
        /// When the head must be complete.
        until: Instant,
    },
    /// So many requests are at work.
    Requests(usize),
    /// Between two requests.
    Idle {
        /// When the connection is closed.
        until: Instant,
    },
    /// It speaks another protocol now, and keeps its own time. Who takes nothing is still given up.
    Upgraded,
    /// Nothing is written any more, so that the connection ends without an answer and the client
    /// knows that it does not know the outcome.
    GivenUp(io::ErrorKind, &'static str),
}

/// After an answer that came before the end of the request's body (it is too long, say), the rest
/// is read and dropped for so long. Closing at once would make the system reset the connection, and
/// the client would lose the answer that says why.
const LINGER: Duration = Duration::from_secs(2);

/// What is read and dropped then, at most.
const LINGER_BYTES: u64 = 64 << 20;

/// Requests that a peer may abandon on one connection beyond those that it takes the answers of. Beginning
/// and resetting them costs it nothing, and us work.
const ABANDONED_MAX: u32 = 64;

impl ConnectionState {
    /// The peer speaks HTTP/2.
    pub fn multiplex(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
    }

    fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    /// The head of a request is complete.
    pub fn request_begins(&self) {
        let mut phase = self.phase.lock();
        *phase = match *phase {
            Phase::Head { .. } | Phase::Idle { .. } => Phase::Requests(1),
            Phase::Requests(others) => Phase::Requests(others + 1),
            other @ (Phase::Upgraded | Phase::GivenUp(..)) => other,
        };
    }

    /// What follows is no HTTP any more.
    pub fn upgraded(&self) {
        *self.phase.lock() = Phase::Upgraded;
    }

    /// The body was too slow. Where others share the connection, only its request ends.
    pub fn body_too_slow(&self) {
        if !self.is_multiplexed() {
            self.give_up(
                io::ErrorKind::TimedOut,
                "the body of a request came too slowly",
            );
        }
    }

    fn give_up(&self, kind: io::ErrorKind, why: &'static str) {
        *self.phase.lock() = Phase::GivenUp(kind, why);
        self.task.wake();
    }

    /// A request ended before there was an answer.
    pub fn request_abandoned(&self) {
        let before = self.abandoned.fetch_add(1, Ordering::Relaxed);
        if self.is_multiplexed() && before >= ABANDONED_MAX {
            self.give_up(
                io::ErrorKind::ConnectionAborted,
                "too many requests were begun and reset",
            );
        }
    }

    /// There is an answer.
    pub fn request_answered(&self) {
        let less = |count: u32| count.checked_sub(1);
        // An error says that there were none.
        let _none = self
            .abandoned
            .try_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// The rest of the body is not wanted. HTTP/2 can say so.
    pub fn leave_unread(&self) {
        if !self.is_multiplexed() {
            self.unread.store(true, Ordering::Relaxed);
        }
    }

    /// The answer has been handed to the connection.
    pub fn request_ends(&self, limits: &HttpLimits) {
        let mut phase = self.phase.lock();
        *phase = match *phase {
            Phase::Requests(0 | 1) => Phase::Idle {
                until: Instant::now() + limits.idle_timeout,
            },
            Phase::Requests(requests) => Phase::Requests(requests - 1),
            other @ (Phase::Head { .. }
            | Phase::Idle { .. }
            | Phase::Upgraded
            | Phase::GivenUp(..)) => other,
        };
        drop(phase);
        // hyper may have polled for the next head already, when no timer was due.
        self.task.wake();
    }
}

/// A TCP connection that is given up when the peer is too slow.
#[derive(Debug)]
pub struct TimedStream {
    stream: TcpStream,
    state: Arc<ConnectionState>,
    limits: HttpLimits,
    read_timer: Pin<Box<Sleep>>,
    write_pace: Pace,
    linger: Option<Linger>,
    /// What was read to know which protocol it is, and is still to be read.
    early: Bytes,
}

/// With what HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The end of a connection whose peer may still be sending.
#[derive(Debug)]
struct Linger {
    deadline: Pin<Box<Sleep>>,
    bytes: u64,
}

impl TimedStream {
    /// A new connection, and what its service tells it.
    pub fn new(stream: TcpStream, limits: HttpLimits) -> (Self, Arc<ConnectionState>) {
        let until = Instant::now() + limits.header_timeout;
        let state = Arc::new(ConnectionState {
            phase: Mutex::new(Phase::Head { until }),
            task: AtomicWaker::new(),
            unread: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            abandoned: AtomicU32::new(0),
        });
        let timed = Self {
            stream,
            state: state.clone(),
            limits,
            read_timer: Box::pin(sleep_until(until)),
            write_pace: Pace::new(limits.write_timeout, limits.min_rate),
            linger: None,
            early: Bytes::new(),
        };
        (timed, state)
    }

    /// Whether the peer begins as HTTP/2 does. What comes is still there to be read.
    pub async fn begins_http2(&mut self) -> io::Result<bool> {
        let (mut begun, mut filled) = ([0; PREFACE.len()], 0);
        let is = loop {
            let read = self.read(&mut begun[filled..]).await?;
            filled += read;
            if read == 0 || begun[..filled] != PREFACE[..filled] {
                break false;
            }
            if filled == PREFACE.len() {
                break true;
            }
        };
        self.early = Bytes::copy_from_slice(&begun[..filled]);
        Ok(is)
    }

    fn bytes_came(&self) {
        let mut phase = self.state.phase.lock();
        // Bytes of HTTP/2 may be of anything, so only a whole head ends the idleness.
        if let Phase::Idle { .. } = *phase
            && !self.state.is_multiplexed()
        {
            *phase = Phase::Head {
                until: Instant::now() + self.limits.header_timeout,
            };
        }
    }

    fn poll_read_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let (until, what) = match *self.state.phase.lock() {
            Phase::Requests(_) | Phase::Upgraded | Phase::GivenUp(..) => {
                self.state.task.register(cx.waker());
                return Poll::Pending;
            }
            Phase::Head { until } => (until, "the head of a request took too long"),
            Phase::Idle { until } => (until, "no request came for too long"),
        };
        if self.read_timer.deadline() != until {
            self.read_timer.as_mut().reset(until);
        }
        self.read_timer
            .as_mut()
            .poll(cx)
            .map(|()| io::Error::new(io::ErrorKind::TimedOut, what))
    }

    fn poll_paced(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.write_pace.progressed(bytes);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.write_pace.poll_too_slow(cx).map(|()| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the answer was read too slowly",
                ))
            }),
        }
    }
}

impl TimedStream {
    fn refuse_if_given_up(&self) -> io::Result<()> {
        match *self.state.phase.lock() {
            Phase::GivenUp(kind, why) => Err(io::Error::new(kind, why)),
            Phase::Head { .. } | Phase::Requests(_) | Phase::Idle { .. } | Phase::Upgraded => {
                Ok(())
            }
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let linger = self.linger.get_or_insert_with(|| Linger {
            deadline: Box::pin(sleep_until(Instant::now() + LINGER)),
            bytes: 0,
        });
        let mut scratch = [0; 16 << 10];
        while linger.bytes < LINGER_BYTES && linger.deadline.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    linger.bytes += buffer.filled().len() as u64;
                }
                // The end, or a peer that has gone: either way nothing more comes.
                Poll::Ready(_) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let fits = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.split_to(fits));
            return Poll::Ready(Ok(()));
        }
        if self.state.is_multiplexed() {
            // Nothing needs to be written before the next request is read.
            self.refuse_if_given_up()?;
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                if buffer.filled().len() > before {
                    self.bytes_came();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_read_timer(cx).map(Err),
        }
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.refuse_if_given_up()?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_paced(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.refuse_if_given_up()?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.poll_paced(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if self.state.unread.load(Ordering::Relaxed) {
            return self.poll_linger(cx);
        }
        Poll::Ready(Ok(()))
    }
}
