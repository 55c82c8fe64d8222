//! A ClusterIP: one address whose connections are spread over the endpoints at random, as by kube-proxy, but by
//! copying bytes and not by rewriting packets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, RwLock};

use rand::seq::IndexedRandom;
use runtime::unpoisoned::unpoisoned;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tracing::debug;

/// The addresses of the pods behind a Service. A clone shares them, so that they can be changed while the Service
/// runs.
#[derive(Clone, Debug, Default)]
pub struct Endpoints(Arc<RwLock<Vec<SocketAddr>>>);

impl Endpoints {
    /// Replaces the endpoints. Existing connections are kept.
    pub fn set(&self, addresses: impl Into<Vec<SocketAddr>>) {
        *unpoisoned(self.0.write()) = addresses.into();
    }

    fn pick(&self) -> Option<SocketAddr> {
        let addresses = unpoisoned(self.0.read());
        addresses.choose(&mut rand::rng()).copied()
    }
}

/// A running Service. Dropping it closes its port.
#[derive(Debug)]
pub struct Service {
    /// The address at which it listens, or refuses connections.
    pub addr: SocketAddr,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Connections are accepted by this task.
    Accepting(JoinHandle<()>),
    /// Connections are refused: the socket is bound, so that nothing else can use the port, but does not listen.
    Refusing(#[expect(dead_code, reason = "it holds the port")] TcpSocket),
}

impl Service {
    /// Starts accepting connections at a port of 127.0.0.1: `port`, or a free one if that is in use or 0.
    ///
    /// # Errors
    ///
    /// When no port can be opened.
    pub async fn start(port: u16, endpoints: Endpoints) -> io::Result<Self> {
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
        };
        let addr = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, endpoints.pick()));
            }
        });
        let state = State::Accepting(accepting);
        Ok(Self { addr, state })
    }

    /// A Service that refuses connections at a free port of 127.0.0.1, as kube-proxy refuses those to a
    /// Service without a ready endpoint.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub fn without_endpoints() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let addr = socket.local_addr()?;
        let state = State::Refusing(socket);
        Ok(Self { addr, state })
    }

    /// Whether connections are accepted.
    pub fn has_endpoints(&self) -> bool {
        matches!(self.state, State::Accepting(_))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let State::Accepting(accepting) = &self.state {
            accepting.abort();
        }
    }
}

/// Copies bytes between a client and a pod. Without a pod the client's connection is closed.
async fn forward(mut client: TcpStream, pod: Option<SocketAddr>) {
    let Some(pod) = pod else { return };
    let joined = async {
        let mut server = TcpStream::connect(pod).await?;
        copy_bidirectional(&mut client, &mut server).await
    };
    if let Err(error) = joined.await {
        debug!(%pod, %error, "connection broken");
    }
}
