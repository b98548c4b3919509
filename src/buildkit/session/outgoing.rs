//! The answer stream of a call that another task fills.
//!
//! Invariants: a stream ends in good order only when its work did; the reader is waited for, but not for ever; what is
//! not yet taken is bounded. When the reader goes away, the work is dropped.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio_stream::Stream;
use tonic::Status;

/// How the work ended; set before the last sender of the queue is dropped.
type End = Arc<OnceLock<Result<(), Status>>>;

/// The stream.
pub struct Outgoing<T> {
    items: mpsc::Receiver<T>,
    end: End,
    over: bool,
}

impl<T> Stream for Outgoing<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.items.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(item)) => Poll::Ready(Some(Ok(item))),
            Poll::Ready(None) => {
                self.over = true;
                match self.end.get() {
                    Some(Ok(())) => Poll::Ready(None),
                    Some(Err(status)) => Poll::Ready(Some(Err(status.clone()))),
                    None => Poll::Ready(Some(Err(Status::internal("the stream broke off")))),
                }
            }
        }
    }
}

/// Where the work puts what it has.
pub(super) struct Outbox<T> {
    queue: mpsc::Sender<T>,
    taking: Duration,
}

impl<T> Outbox<T> {
    /// Waits for the reader, for `taking` at most.
    pub async fn put(&self, item: T) -> Result<(), Status> {
        self.queue.send_timeout(item, self.taking).await.map_err(|problem| match problem {
            SendTimeoutError::Closed(_) => gone(),
            SendTimeoutError::Timeout(_) => {
                Status::deadline_exceeded(format!("nothing was taken for {} s", self.taking.as_secs()))
            }
        })
    }
}

fn gone() -> Status {
    Status::cancelled("the other side went away")
}

/// Starts `work` and returns the stream of what it puts. `taking` is how long the reader may take nothing.
pub(super) fn run<T, F>(capacity: usize, taking: Duration, work: impl FnOnce(Outbox<T>) -> F) -> Outgoing<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (queue, items) = mpsc::channel(capacity);
    let end = End::default();
    let slot = end.clone();
    let work = work(Outbox { queue: queue.clone(), taking });
    tokio::spawn(async move {
        // whoever went away first: what the work is at is then for nobody
        let result = tokio::select! {
            biased;
            () = queue.closed() => Err(gone()),
            result = work => result,
        };
        // set once, here, while `queue` still keeps the stream open
        let _ = slot.set(result);
    });
    Outgoing { items, end, over: false }
}
