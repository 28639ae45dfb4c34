//! One HTTP port: accepts connections, bounds their number, their age, their heads and their
//! silence. Not here: what is answered (`routes.rs`, `health.rs`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::guard::REQUEST_TIME_MAX;

/// Connections of one port at a time; more wait in the system's backlog.
pub const CONNECTIONS_MAX: usize = if cfg!(test) { 64 } else { 2_048 };
/// Time to send the whole head of a request, which is also how long an idle connection is kept.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Head of a request, bytes.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
pub const HEADERS_MAX: usize = 64;
/// A connection older than this is closed after the request that it is in.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(if cfg!(test) { 14 } else { 300 });

/// Accepts until `stop` turns true, then returns when the requests that run have ended.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<TlsAcceptor>,
    stop: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    accept(&listener, &router, tls.as_ref(), stop, &permits).await;
    drop(listener);
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let _ended = permits.acquire_many(all).await;
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    tls: Option<&TlsAcceptor>,
    mut stop: watch::Receiver<bool>,
    permits: &Arc<Semaphore>,
) {
    loop {
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
            return;
        };
        let their_stop = stop.clone();
        tokio::select! {
            () = until_stopped(&mut stop) => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let (router, tls) = (router.clone(), tls.cloned());
                    tokio::spawn(async move {
                        let _permit = permit;
                        match tls {
                            None => connection(stream, peer, router, their_stop).await,
                            Some(tls) => {
                                if let Some(stream) = shake_hands(&tls, stream, peer).await {
                                    connection(stream, peer, router, their_stop).await;
                                }
                            }
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: do not spin on it.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

/// Whoever does not finish a handshake in the time for a head is gone.
async fn shake_hands(
    tls: &TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(HEAD_TIME_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "no TLS connection came about");
            None
        }
        Err(_) => None,
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    let result = tokio::select! {
        result = &mut served => result,
        () = until_old_or_stopped(&mut stop) => {
            served.as_mut().graceful_shutdown();
            // A reader that takes nothing must not hold the connection for ever.
            match tokio::time::timeout(REQUEST_TIME_MAX, served).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn until_old_or_stopped(stop: &mut watch::Receiver<bool>) {
    tokio::select! {
        () = until_stopped(stop) => {}
        () = tokio::time::sleep(CONNECTION_AGE_MAX) => {}
    }
}

/// Also when the sender is gone.
async fn until_stopped(stop: &mut watch::Receiver<bool>) {
    let _seen = stop.wait_for(|stop| *stop).await;
}
