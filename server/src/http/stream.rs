//! The socket of a connection under its timers.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Part of a head is there, or the connection is new.
    Head {
        /// When the head must be complete.
        until: Instant,
    },
    /// A request is at work.
    Request,
    /// Between two requests.
    Idle {
        /// When the connection is closed.
        until: Instant,
    },
    /// It speaks another protocol now, and keeps its own time. Who takes nothing is still given up.
    Upgraded,
    /// The peer was too slow: nothing is written any more, so that the connection ends without an
    /// answer and the client knows that it does not know the outcome.
    GivenUp,
}

/// After an answer that came before the end of the request's body (it is too long, say), the rest
/// is read and dropped for so long. Closing at once would make the system reset the connection, and
/// the client would lose the answer that says why.
const LINGER: Duration = Duration::from_secs(2);

/// What is read and dropped then, at most.
const LINGER_BYTES: u64 = 64 << 20;

impl ConnectionState {
    /// The head of a request is complete.
    pub fn request_begins(&self) {
        *self.phase.lock() = Phase::Request;
    }

    /// What follows is no HTTP any more.
    pub fn upgraded(&self) {
        *self.phase.lock() = Phase::Upgraded;
    }

    /// The body was too slow.
    pub fn give_up(&self) {
        *self.phase.lock() = Phase::GivenUp;
    }

    /// The rest of the body is not wanted.
    pub fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// The answer has been handed to the connection.
    pub fn request_ends(&self, limits: &HttpLimits) {
        let mut phase = self.phase.lock();
        if *phase == Phase::Request {
            *phase = Phase::Idle {
                until: Instant::now() + limits.idle_timeout,
            };
        }
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
}

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
        });
        let timed = Self {
            stream,
            state: state.clone(),
            limits,
            read_timer: Box::pin(sleep_until(until)),
            write_pace: Pace::new(limits.write_timeout, limits.min_rate),
            linger: None,
        };
        (timed, state)
    }

    fn bytes_came(&self) {
        let mut phase = self.state.phase.lock();
        if let Phase::Idle { .. } = *phase {
            *phase = Phase::Head {
                until: Instant::now() + self.limits.header_timeout,
            };
        }
    }

    fn poll_read_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let (until, what) = match *self.state.phase.lock() {
            Phase::Request | Phase::Upgraded | Phase::GivenUp => {
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
        if *self.state.phase.lock() == Phase::GivenUp {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the body of a request came too slowly",
            ));
        }
        Ok(())
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
