//! The body of a response.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// A complete body is handed out in pieces of at most this many bytes. Hyper copies each piece of an HTTP/1 response
/// into the buffer of its connection, and takes the next one when that has been written; so a client that does not
/// read makes it copy 32 KB and not all of a page.
pub(crate) const PIECE: usize = 8 * 1024;

/// The body of a response: complete, or a stream of pieces that ends when the sender is dropped.
#[derive(Debug)]
pub enum Body {
    /// The complete body, sent with its length.
    Whole(Bytes),
    /// A stream: each piece is sent as soon as it comes through the channel. Over HTTP/2 a streamed response does
    /// not keep its connection from being idle.
    Stream(mpsc::Receiver<Bytes>),
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(whole: T) -> Self {
        Self::Whole(whole.into())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            Self::Whole(whole) if whole.is_empty() => Poll::Ready(None),
            Self::Whole(whole) => Poll::Ready(Some(whole.split_to(whole.len().min(PIECE)))),
            Self::Stream(pieces) => pieces.poll_recv(cx),
        };
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(whole) if whole.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => SizeHint::with_exact(whole.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use hyper::body::Body as _;

    use super::*;

    #[tokio::test]
    async fn a_large_body_comes_in_pieces_and_a_small_one_whole() {
        for (length, pieces) in [(0, 0), (1, 1), (PIECE, 1), (PIECE + 1, 2), (3 * PIECE, 3)] {
            let mut body = Body::from(vec![b'x'; length]);
            let (mut n, mut left) = (0, length);
            while let Some(Ok(frame)) = body.frame().await {
                let piece = frame.into_data().expect("it has no trailers");
                assert!(piece.len() <= PIECE);
                left -= piece.len();
                assert_eq!(body.size_hint().exact(), Some(left as u64));
                assert_eq!(body.is_end_stream(), left == 0);
                n += 1;
            }
            assert_eq!((n, left), (pieces, 0), "{length}");
        }
    }
}
