//! The socket of a connection under its timers.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

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
}

impl ConnectionState {
    /// The head of a request is complete.
    pub fn request_begins(&self) {
        *self.phase.lock() = Phase::Request;
    }

    /// The answer has been handed to the connection.
    pub fn request_ends(&self, limits: &HttpLimits) {
        *self.phase.lock() = Phase::Idle {
            until: Instant::now() + limits.idle_timeout,
        };
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
}

impl TimedStream {
    /// A new connection, and what its service tells it.
    pub fn new(stream: TcpStream, limits: HttpLimits) -> (Self, Arc<ConnectionState>) {
        let until = Instant::now() + limits.header_timeout;
        let state = Arc::new(ConnectionState {
            phase: Mutex::new(Phase::Head { until }),
            task: AtomicWaker::new(),
        });
        let timed = Self {
            stream,
            state: state.clone(),
            limits,
            read_timer: Box::pin(sleep_until(until)),
            write_pace: Pace::new(limits.write_timeout, limits.min_rate),
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
            Phase::Request => {
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

    fn poll_paced<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Ok(value)) => {
                self.write_pace.progressed(bytes(&value));
                Poll::Ready(Ok(value))
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
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_paced(cx, written, |n| *n)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.poll_paced(cx, written, |n| *n)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
