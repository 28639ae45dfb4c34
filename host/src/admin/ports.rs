//! Opens the two ports of a running host and keeps them on threads of their own, apart from the
//! workers. Not here: what they answer (`routes.rs`, `health.rs`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::console::Console;
use super::guard::{Guarded, Scheme};
use super::lanes::BLOCKING_THREADS_MAX;
use super::token::{self, Address, Token};
use super::{health, port, routes, tls};
use crate::config::valid::Tls;
use crate::telemetry::metrics::Metrics;

/// Connections that the system holds until they are accepted: as many as may be open.
const BACKLOG: u32 = 2_048;
/// How long [`Ports::close`] waits for requests that run.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// Why the ports could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "without TLS the admin port may listen on a loopback address only, not on {0}; use 127.0.0.1:4180, or give it a certificate under host.admin.tls"
    )]
    NotLoopback(SocketAddr),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error(
        "cannot listen on {address} for {what}: {source}; is another host running? choose another address in the YAML under host.{what}.listen"
    )]
    Listen {
        what: &'static str,
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("cannot start the ports: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Files(#[from] token::Error),
}

/// How the admin port is opened: plain on loopback, or with TLS anywhere.
pub struct Admin {
    pub listen: SocketAddr,
    pub tls: Option<Tls>,
    /// `None`: a random one.
    pub token: Option<Token>,
}

impl From<SocketAddr> for Admin {
    fn from(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: None,
            token: None,
        }
    }
}

/// Both ports, open. They close when this is dropped; [`Ports::close`] also lets requests end.
pub struct Ports {
    runtime: Option<Runtime>,
    serving: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    address: Address,
    data_dir: PathBuf,
}

impl Ports {
    /// Listens on both addresses (port 0 = any), writes `admin-token` and `admin.json` to `data_dir`.
    pub fn open(
        data_dir: &Path,
        admin: impl Into<Admin>,
        health: SocketAddr,
        console: Arc<Console>,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let Admin {
            listen: admin,
            tls,
            token,
        } = admin.into();
        if tls.is_none() && !admin.ip().is_loopback() {
            return Err(Error::NotLoopback(admin));
        }
        let tls = tls.as_ref().map(tls::acceptor).transpose()?;
        let (admin_socket, admin) = bind("admin", admin)?;
        let (health_socket, health) = bind("health", health)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("admin")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let token = token.unwrap_or_else(Token::random);
        // Before anything answers: whoever finds the host ready can also find its admin port.
        let address = Address {
            admin,
            health,
            tls: tls.is_some(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        token.write(data_dir)?;
        address.write(data_dir)?;
        let (stop, stopped) = watch::channel(false);
        let guarded = Guarded {
            token,
            scheme: if tls.is_some() {
                Scheme::Https
            } else {
                Scheme::Http
            },
        };
        let admin_router = routes::router(Arc::clone(&console), guarded);
        let health_router = health::router(console, metrics);
        let serving = {
            let _inside = runtime.enter();
            let listen = |socket: TcpSocket, what, address| {
                let failed = |source| Error::Listen {
                    what,
                    address,
                    source,
                };
                socket.listen(BACKLOG).map_err(failed)
            };
            let admin = listen(admin_socket, "admin", admin)?;
            let health = listen(health_socket, "health", health)?;
            vec![
                runtime.spawn(port::serve(admin, admin_router, tls, stopped.clone())),
                runtime.spawn(port::serve(health, health_router, None, stopped)),
            ]
        };
        tracing::info!(%admin, %health, "ports are open");
        Ok(Self {
            runtime: Some(runtime),
            serving,
            stop,
            address,
            data_dir: data_dir.to_owned(),
        })
    }

    /// Where the ports really listen.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Closes both ports; requests that run may end within [`CLOSE_TIME_MAX`].
    pub fn close(mut self) {
        self.stop.send_replace(true);
        let serving = std::mem::take(&mut self.serving);
        if let Some(runtime) = self.runtime.take() {
            let ended = runtime.block_on(async {
                // The timer wants to be made inside the runtime.
                tokio::time::timeout(CLOSE_TIME_MAX, async {
                    for port in serving {
                        let _ended = port.await;
                    }
                })
                .await
            });
            if ended.is_err() {
                tracing::warn!("requests to the ports were cut off");
            }
            runtime.shutdown_background();
        }
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        token::remove(&self.data_dir);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Bound, and not yet listening: that needs the runtime.
fn bind(what: &'static str, address: SocketAddr) -> Result<(TcpSocket, SocketAddr), Error> {
    let failed = |source| Error::Listen {
        what,
        address,
        source,
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(failed)?;
    // A port that was just given up by another host is free.
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}
