//! The gRPC service around [`Exports`]: one method, whose messages are passed on as the bytes that they are.
//!
//! Written by hand because no description can say that a method's messages depend on its metadata.

use std::convert::Infallible;
use std::future::Ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::Exports;
use crate::buildkit::connect::MESSAGE_LIMIT;
use crate::buildkit::session::outgoing::Outgoing;

/// The session's `FileSend` service.
#[derive(Clone)]
pub(in crate::buildkit::session) struct FileSendServer {
    exports: Arc<Exports>,
}

impl FileSendServer {
    pub fn new(exports: Exports) -> Self {
        Self { exports: Arc::new(exports) }
    }
}

impl NamedService for FileSendServer {
    const NAME: &'static str = "moby.filesync.v1.FileSend";
}

impl<B> Service<http::Request<B>> for FileSendServer
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != "/moby.filesync.v1.FileSend/DiffCopy" {
            let answer = Status::unimplemented("FileSend has no such method").into_http();
            return Box::pin(async move { Ok(answer) });
        }
        let request = request.map(|body| Whole(Box::pin(body)));
        let method = DiffCopy(self.exports.clone());
        Box::pin(async move {
            let limit = Some(MESSAGE_LIMIT);
            let mut grpc = Grpc::new(Raw).apply_max_message_size_config(limit, limit);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct DiffCopy(Arc<Exports>);

impl StreamingService<Bytes> for DiffCopy {
    type Response = Bytes;
    type ResponseStream = Outgoing<Bytes>;
    type Future = Ready<Result<Response<Outgoing<Bytes>>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        std::future::ready(self.0.accept(request))
    }
}

/// A request's body that ends only where the sender ended it. Without this, one that is given up in the middle looks as if
/// it were whole: the HTTP library takes a stream that is reset without an error for a finished one, and tonic takes one
/// that is cancelled for a finished one. So whatever breaks it is told as something else.
struct Whole<B>(Pin<Box<B>>);

impl<B> Body for Whole<B>
where
    B: Body,
    B::Error: Into<StdError>,
{
    type Data = B::Data;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, StdError>>> {
        match self.0.as_mut().poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(None) if self.0.is_end_stream() => Poll::Ready(None),
            Poll::Ready(broken) => {
                let cause = broken.and_then(Result::err).map(Into::<StdError>::into);
                let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                let given_up = Status::aborted(format!("the stream broke off before its end{cause}"));
                Poll::Ready(Some(Err(given_up.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// Messages as the bytes that they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that ends as told, after one message.
    struct Ending {
        message: Option<Bytes>,
        end: Option<Status>,
        ended_by_sender: bool,
    }

    impl Body for Ending {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Status>>> {
            match self.message.take() {
                Some(message) => Poll::Ready(Some(Ok(hyper::body::Frame::data(message)))),
                None => Poll::Ready(self.end.take().map(Err)),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.ended_by_sender && self.message.is_none()
        }
    }

    async fn ends(end: Option<Status>, ended_by_sender: bool) -> Result<Option<Bytes>, Status> {
        let message = Some(Bytes::from_static(b"\0\0\0\0\x01x"));
        let body = Whole(Box::pin(Ending { message, end, ended_by_sender }));
        let mut stream = Streaming::new_request(Raw, body, None, None);
        assert_eq!(stream.message().await.unwrap().as_deref(), Some(&b"x"[..]));
        stream.message().await
    }

    #[tokio::test]
    async fn only_the_sender_ends_a_stream() {
        assert_eq!(ends(None, true).await.unwrap(), None);
        for broken in [None, Some(Status::cancelled("given up")), Some(Status::unavailable("cut"))] {
            let told = ends(broken.clone(), false).await.unwrap_err();
            assert_eq!(told.code(), tonic::Code::Aborted, "{broken:?}: {told}");
        }
    }
}
