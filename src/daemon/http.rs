//! Metrics and health over HTTP, for monitoring and for supervisors that have no systemd. Off unless the settings say so.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::control::{self, Call, Reply, Request};
use crate::config::Settings;

/// How long one connection may last.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the loop may take for an answer before it counts as stuck.
const LIVELINESS: Duration = Duration::from_secs(5);
/// Connections served at a time.
const MAX_CLIENTS: usize = 32;
/// What Prometheus calls its text.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What one address serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Endpoint {
    address: SocketAddr,
    metrics: bool,
    health: bool,
}

/// The servers that the settings ask for.
#[derive(Default)]
pub struct Servers {
    endpoints: Vec<Endpoint>,
    tasks: JoinSet<()>,
    problem: Option<String>,
}

impl Servers {
    /// Serves what the settings ask for, and nothing else. Addresses that are served already go on without a break.
    pub async fn configure(&mut self, settings: &Settings, calls: &mpsc::Sender<Call>) {
        let wanted = wanted(settings);
        if wanted == self.endpoints && self.problem.is_none() {
            return;
        }
        self.tasks.shutdown().await;
        self.problem = None;
        for endpoint in &wanted {
            match TcpListener::bind(endpoint.address).await {
                Ok(listener) => {
                    self.tasks.spawn(accept(listener, *endpoint, calls.clone()));
                }
                Err(error) => {
                    self.problem = Some(format!(
                        "cannot serve {} on {}: {error}",
                        endpoint.content(),
                        endpoint.address
                    ));
                }
            }
        }
        self.endpoints = wanted;
    }

    /// Why something is not served, if so.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

impl Endpoint {
    fn content(&self) -> &'static str {
        match (self.metrics, self.health) {
            (true, true) => "metrics and health",
            (true, false) => "metrics",
            _ => "health",
        }
    }
}

fn wanted(settings: &Settings) -> Vec<Endpoint> {
    let metrics = SocketAddr::new(
        settings.prometheus_metrics_host,
        settings.prometheus_metrics_port,
    );
    let health = SocketAddr::new(settings.health_host, settings.health_port);
    let mut endpoints = Vec::new();
    if settings.prometheus_metrics_enabled {
        endpoints.push(Endpoint {
            address: metrics,
            metrics: true,
            health: settings.health_enabled && health == metrics,
        });
    }
    if settings.health_enabled && !endpoints.iter().any(|e| e.health) {
        endpoints.push(Endpoint {
            address: health,
            metrics: false,
            health: true,
        });
    }
    endpoints
}

async fn accept(listener: TcpListener, endpoint: Endpoint, calls: mpsc::Sender<Call>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    serve(stream, endpoint, calls).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("HTTP on {}: {error}", endpoint.address);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, endpoint: Endpoint, calls: mpsc::Sender<Call>) {
    let service = service_fn(|request| answer(request, endpoint, &calls));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(16 << 10)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("HTTP on {}: {error}", endpoint.address),
        Err(_) => tracing::debug!("HTTP on {}: a client was too slow", endpoint.address),
    }
}

async fn answer(
    request: HttpRequest<Incoming>,
    endpoint: Endpoint,
    calls: &mpsc::Sender<Call>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET {
        return Ok(response(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET\n".to_owned(),
        ));
    }
    let answer = match request.uri().path() {
        "/metrics" if endpoint.metrics => metrics(calls).await,
        "/liveness" if endpoint.health => health(calls, false).await,
        "/readiness" if endpoint.health => health(calls, true).await,
        _ => response(StatusCode::NOT_FOUND, "not served here\n".to_owned()),
    };
    Ok(answer)
}

async fn metrics(calls: &mpsc::Sender<Call>) -> Response<Full<Bytes>> {
    match ask(calls, Request::Metrics).await {
        Some(serde_json::Value::String(text)) => {
            let mut response = response(StatusCode::OK, text);
            let kind = hyper::header::HeaderValue::from_static(METRICS_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => response(StatusCode::SERVICE_UNAVAILABLE, "no answer\n".to_owned()),
    }
}

/// Live is a loop that answers; ready is one whose policy is in force.
async fn health(calls: &mpsc::Sender<Call>, readiness: bool) -> Response<Full<Bytes>> {
    let (status, text) = match ask(calls, Request::Ready).await {
        None => (StatusCode::SERVICE_UNAVAILABLE, "moatd does not answer\n"),
        Some(ready) if readiness && ready != serde_json::Value::Bool(true) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no policy is in force yet\n",
        ),
        Some(_) => (StatusCode::OK, "ok\n"),
    };
    response(status, text.to_owned())
}

async fn ask(calls: &mpsc::Sender<Call>, request: Request) -> Option<serde_json::Value> {
    let answer = tokio::time::timeout(LIVELINESS, control::ask(calls, request)).await;
    match answer {
        Ok(Reply::Ok(value)) => Some(value),
        _ => None,
    }
}

fn response(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// A loop that answers every call the same way.
    fn looping(ready: bool) -> mpsc::Sender<Call> {
        let (sender, mut calls) = mpsc::channel::<Call>(4);
        tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                let value = match call.request {
                    Request::Metrics => "moat_ready 1\n# EOF\n".into(),
                    _ => ready.into(),
                };
                let _ = call.reply.send(Reply::Ok(value));
            }
        });
        sender
    }

    async fn served(metrics: bool, health: bool, calls: mpsc::Sender<Call>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Endpoint {
            address,
            metrics,
            health,
        };
        tokio::spawn(accept(listener, endpoint, calls));
        address
    }

    #[tokio::test]
    async fn each_address_serves_what_it_is_for() {
        let address = served(true, false, looping(true)).await;
        let metrics = get(address, "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
        assert!(metrics.ends_with("moat_ready 1\n# EOF\n"), "{metrics}");
        assert!(get(address, "/liveness").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn ready_is_more_than_alive() {
        let address = served(false, true, looping(false)).await;
        assert!(get(address, "/liveness").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readiness").await.starts_with("HTTP/1.1 503"));
        let address = served(false, true, looping(true)).await;
        assert!(get(address, "/readiness").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_loop_that_is_gone_is_not_alive() {
        let (calls, receiver) = mpsc::channel(1);
        drop(receiver);
        let address = served(false, true, calls).await;
        assert!(get(address, "/liveness").await.starts_with("HTTP/1.1 503"));
    }
}
