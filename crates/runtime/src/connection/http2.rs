//! HTTP/2 with prior knowledge.

use std::pin::{Pin, pin};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::watch;

use super::{Service, drive};
use crate::activity::Activity;
use crate::server::{Limits, Phase};
use crate::socket::Socket;

/// Requests at once, bytes of one's head, and bytes of bodies in transit, for each connection.
const MAX_STREAMS: u32 = 32;
const MAX_HEADER_LIST: u32 = 16 * 1024;
const STREAM_WINDOW: u32 = 64 * 1024;

/// Serves a connection whose first bytes said that it is HTTP/2.
pub(super) async fn serve(
    io: TokioIo<Socket>,
    service: Service,
    activity: &Activity,
    limits: &Limits,
    phase: watch::Receiver<Phase>,
) -> hyper::Result<()> {
    let connection = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let leave = |connection: Pin<&mut http2::Connection<_, _, _>>| {
        connection.graceful_shutdown();
    };
    drive(connection.as_mut(), leave, activity, limits, phase, true).await
}
