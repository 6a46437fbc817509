//! Bodies on their way in and out: they come in time and are not kept for those who have proven nothing; who takes none of
//! an answer is noticed.

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

use super::{FIELDS, activity::Answer, shares::Share};

/// How much of a body is read that a route has left, and for how long.
const REST: usize = 64 << 10;
const REST_PATIENCE: Duration = Duration::from_secs(1);
/// What a part of a body takes beside its bytes.
const FRAME: usize = 64;
/// A smaller part of a body is copied: it would keep all that came with it.
const SMALL_PART: usize = 1024;
/// An answer leaves in parts of this size, so that it is seen how much of it was taken.
const PIECE: usize = 16 << 10;

/// A request's body, which can still be read when its route has done with it.
pub(super) struct Shared<B>(Arc<Mutex<B>>);

impl<B> Clone for Shared<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> Shared<B> {
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

    /// Reads what a route has left, as far as it is little and comes soon. Returns whether that was all.
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

/// A request's body that breaks off when its time is over, or when it is more than may be held of requests that have proven
/// nothing.
pub(super) struct Arriving<B> {
    body: Shared<B>,
    deadline: Pin<Box<Sleep>>,
    held: Arc<Share>,
}

impl<B> Arriving<B> {
    pub(super) fn new(body: Shared<B>, patience: Duration, held: Arc<Share>) -> Self {
        Self {
            body,
            deadline: Box::pin(sleep(patience)),
            held,
        }
    }
}

impl<B> HttpBody for Arriving<B>
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

fn accept(frame: Frame<Bytes>, held: &Share) -> Result<Frame<Bytes>, BoxError> {
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

/// An answer's body on its way to the client.
pub(super) struct Leaving {
    body: Body,
    /// What of it is still to be handed over.
    rest: Bytes,
    answer: Answer,
    /// Where its request had one, it has it until the answer is taken.
    _place: Option<OwnedSemaphorePermit>,
}

impl Leaving {
    pub(super) fn new(body: Body, answer: Answer, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            answer,
            _place: place,
        }
    }
}

impl HttpBody for Leaving {
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
