//! Where metrics are read: `GET /metrics`.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::Format;

/// Where to listen: `9641` on this host alone, `0.0.0.0:9641` or `[::]:9641` for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsAddress(pub SocketAddr);

/// Neither a port nor an address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither a port (9641, on this host alone) nor an address with a port (0.0.0.0:9641, [::]:9641)")]
pub struct InvalidAddress;

impl FromStr for MetricsAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let alone = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let address = text.parse::<u16>().map(alone).or_else(|_| text.parse());
        address.map(Self).map_err(|_| InvalidAddress)
    }
}

/// Metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics at {address}; choose another address with --metrics")]
pub struct BindError {
    /// Where they were to be served.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// A listening socket for scrapers.
#[derive(Debug)]
pub struct MetricsServer(TcpListener);

impl MetricsServer {
    /// Listens.
    pub async fn bind(MetricsAddress(address): MetricsAddress) -> Result<Self, BindError> {
        let listener = TcpListener::bind(address).await;
        listener.map(Self).map_err(|source| BindError { address, source })
    }

    /// Answers with what `metrics` gives until it is dropped.
    pub async fn serve<M>(&self, metrics: M) -> Infallible
    where
        M: AsyncFn(Format) -> String + 'static,
    {
        let (metrics, open) = (Rc::new(metrics), Rc::new(Cell::new(0_usize)));
        let accept = async {
            loop {
                match self.0.accept().await {
                    // One more than that is closed again.
                    Ok(_) if open.get() >= MOST_CONNECTIONS => {}
                    Ok((stream, _)) => {
                        open.set(open.get() + 1);
                        let (metrics, open) = (Rc::clone(&metrics), Rc::clone(&open));
                        spawn_local(async move {
                            serve_connection(stream, &*metrics).await;
                            open.set(open.get() - 1);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection for metrics");
                        sleep(ACCEPT_RETRY).await;
                    }
                }
            }
        };
        LocalSet::new().run_until(accept).await
    }
}

async fn serve_connection<M: AsyncFn(Format) -> String>(stream: TcpStream, metrics: &M) {
    let service = service_fn(async |request| Ok::<_, Infallible>(respond(&request, metrics).await));
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_LIMIT, connection).await {
        tracing::debug!(%error, "a connection for metrics broke");
    }
}

async fn respond<M: AsyncFn(Format) -> String>(
    request: &Request<Incoming>,
    metrics: &M,
) -> Response<Full<Bytes>> {
    let answer = |status, content_type: &'static str, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, content_type.parse().expect("a header of ours"));
        response
    };
    let plain = "text/plain; charset=utf-8";
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
            let format = Format::accepted(accept);
            answer(StatusCode::OK, format.content_type(), metrics(format).await)
        }
        (&Method::GET, _) => answer(StatusCode::NOT_FOUND, plain, "metrics are at /metrics\n".into()),
        _ => answer(StatusCode::METHOD_NOT_ALLOWED, plain, "only GET\n".into()),
    }
}

const MOST_CONNECTIONS: usize = 16;
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_for_this_host_alone() {
        let rows = [
            ("9641", Some("127.0.0.1:9641")),
            ("0.0.0.0:9641", Some("0.0.0.0:9641")),
            ("[::]:9641", Some("[::]:9641")),
            ("eth0", None),
            ("localhost:9641", None),
            ("70000", None),
        ];
        for (text, expected) in rows {
            let expected = expected.map(|address| MetricsAddress(address.parse().unwrap()));
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
