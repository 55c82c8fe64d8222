//! Connections that speak HTTP/2 with prior knowledge (RFC 9113, section 3.3).

use std::pin::{Pin, pin};
use std::sync::Arc;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::watch;

use super::client::Client;
use super::connection::{Driven, drive, log_end};
use super::lifecycle::Phase;
use super::limits::{HTTP2_WEIGHT, MAX_HEADER_LIST, MAX_STREAMS, WINDOW};
use super::service::Service;
use super::socket::Socket;

/// Serves a connection that has begun with the preface of HTTP/2, until it ends.
pub(super) async fn serve(socket: Socket, client: Arc<Client>, phase: &mut watch::Receiver<Phase>) {
    let _pending = client.admit(HTTP2_WEIGHT).await;
    let connection = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .serve_connection(TokioIo::new(socket), Service(Arc::clone(&client)));
    let mut connection = pin!(connection);
    let graceful_shutdown = |connection: Pin<&mut http2::Connection<_, _, _>>| {
        connection.graceful_shutdown();
    };
    if let Driven::Ended(ended) =
        drive(connection.as_mut(), graceful_shutdown, &client, phase, true).await
    {
        log_end(&client, ended);
    }
}
