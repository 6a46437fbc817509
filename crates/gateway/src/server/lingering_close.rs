//! Staged close of a connection, as RFC 9112, section 9.6, requires: first the write half, then the rest, when the
//! client has closed its own half or has sent nothing for a while.
//!
//! A client may still be sending the body of a request that is already answered (413, 401, 429 …). The system resets a
//! connection that is closed with unread bytes, and a reset can discard the answer before the client has read the
//! answer.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::connection::Connection;

/// The longest silence of a client that is still sending.
const QUIET: Duration = Duration::from_secs(2);
/// The bytes that a client may still send: more than any route accepts.
const REST: usize = 16 << 20;
/// The size of one read, in bytes.
const ROOM: usize = 8 << 10;

/// A stream with a staged close.
pub(super) struct Staged<S> {
    stream: S,
    connection: Arc<Connection>,
    /// The longest time for which the client may send bytes that the server discards.
    patience: Duration,
    closing: Option<Closing>,
}

/// The state after the close of the write half.
struct Closing {
    /// The deadline of the full close, also while bytes arrive.
    end: Instant,
    /// The time of the full close if no bytes arrive.
    quiet: Pin<Box<Sleep>>,
    /// The number of bytes that the server still reads.
    rest: usize,
    /// Whether the client may still be sending.
    is_unread: bool,
}

impl<S> Staged<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>, patience: Duration) -> Self {
        Self {
            stream,
            connection,
            patience,
            closing: None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Staged<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let closing = if let Some(closing) = &mut this.closing {
            closing
        } else {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            this.closing.insert(Closing {
                end: Instant::now() + this.patience,
                quiet: Box::pin(sleep(QUIET.min(this.patience))),
                rest: REST,
                is_unread: this.connection.is_unread(),
            })
        };
        loop {
            let mut room = [MaybeUninit::uninit(); ROOM];
            let mut read = ReadBuf::uninit(&mut room);
            match Pin::new(&mut this.stream).poll_read(context, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    let now = Instant::now();
                    closing.rest = closing.rest.saturating_sub(read.filled().len());
                    if closing.rest == 0 || now >= closing.end {
                        return Poll::Ready(Ok(()));
                    }
                    closing.quiet.as_mut().reset(closing.end.min(now + QUIET));
                    closing.is_unread = true;
                }
                Poll::Pending if closing.is_unread => {
                    return closing.quiet.as_mut().poll(context).map(Ok);
                }
                // The client has closed its half, or the server expects no more bytes.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Staged<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, room);
        if room.filled().len() > before {
            self.connection.hear();
        }
        read
    }
}
