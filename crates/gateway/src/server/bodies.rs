//! Bodies of requests and answers: a request body has a time limit and, while unproven, a size limit; the server
//! notices a client that takes no part of an answer.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use api::SlowBody;
use axum::{
    BoxError,
    body::{Body, HttpBody},
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep, timeout},
};

use super::{FIELDS, activity::PendingResponse, client_limits::TakenUnits};

/// The largest unread rest of a body that the server reads after the route, and the time limit for reading.
const REST: usize = 64 << 10;
const REST_PATIENCE: Duration = Duration::from_secs(1);
/// The memory of one body frame in addition to its bytes.
const FRAME: usize = 64;
/// A smaller frame is copied: a slice would keep the whole receive buffer in memory.
const SMALL_PART: usize = 1024;
/// Answers are sent in pieces of this size, so that the server sees how much the client has taken.
const PIECE: usize = 16 << 10;

/// A request body that remains readable after the route has finished.
pub(super) struct SharedBody<B>(Arc<Mutex<B>>);

impl<B> Clone for SharedBody<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> SharedBody<B> {
    pub(super) fn new(body: B) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    fn lock(&self) -> MutexGuard<'_, B> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_frame(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut *self.lock()).poll_frame(context)
    }

    /// Reads the rest that the route has left, up to `REST` bytes and `REST_PATIENCE`. Returns whether the body was
    /// read to its end.
    pub(super) async fn read_rest(&self) -> bool {
        if self.lock().is_end_stream() {
            return true;
        }
        if self.lock().size_hint().lower() > REST as u64 {
            return false;
        }
        let mut read = 0;
        let reading = poll_fn(|context| {
            loop {
                match ready!(self.poll_frame(context)) {
                    Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                    Some(Err(_)) => return Poll::Ready(false),
                    None => return Poll::Ready(true),
                }
                if read > REST {
                    return Poll::Ready(false);
                }
            }
        });
        timeout(REST_PATIENCE, reading).await.unwrap_or(false)
    }
}

/// A request body that fails when its time limit ends, or when unproven requests hold too many bytes.
pub(super) struct RequestBody<B> {
    body: SharedBody<B>,
    deadline: Pin<Box<Sleep>>,
    held: Arc<TakenUnits>,
}

impl<B> RequestBody<B> {
    pub(super) fn new(body: SharedBody<B>, patience: Duration, held: Arc<TakenUnits>) -> Self {
        Self {
            body,
            deadline: Box::pin(sleep(patience)),
            held,
        }
    }
}

impl<B> HttpBody for RequestBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(SlowBody.into())));
        }
        let frame = ready!(self.body.poll_frame(context));
        Poll::Ready(frame.map(|frame| accept(frame.map_err(Into::into)?, &self.held)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.lock().size_hint()
    }
}

fn accept(frame: Frame<Bytes>, held: &TakenUnits) -> Result<Frame<Bytes>, BoxError> {
    if frame
        .trailers_ref()
        .is_some_and(|fields| fields.len() > FIELDS)
    {
        return Err("too many fields behind the body".into());
    }
    if let Some(data) = frame.data_ref() {
        held.take(data.len() + FRAME)?;
    }
    Ok(frame.map_data(|data| {
        if data.len() < SMALL_PART {
            Bytes::copy_from_slice(&data)
        } else {
            data
        }
    }))
}

/// The body of an answer during transfer to the client.
pub(super) struct ResponseBody {
    body: Body,
    /// The bytes of the last frame that hyper has not taken yet.
    rest: Bytes,
    answer: PendingResponse,
    /// The permit of the request, if any, held until the client has taken the answer.
    _place: Option<OwnedSemaphorePermit>,
}

impl ResponseBody {
    pub(super) fn new(
        body: Body,
        answer: PendingResponse,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            answer,
            _place: place,
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.answer.taken();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}
