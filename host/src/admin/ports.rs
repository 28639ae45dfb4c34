//! Opens the two ports of a running host and keeps them on threads of their own, apart from the
//! workers. Not here: what they answer (`routes.rs`, `health.rs`).

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::console::Console;
use super::token::{self, Address, Token};
use super::{health, port, routes};
use crate::telemetry::metrics::Metrics;

/// Requests of both ports that may wait for the disk at a time.
pub const BLOCKING_THREADS_MAX: usize = 8;
/// How long [`Ports::close`] waits for requests that run.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// Why the ports could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the admin port may listen on a loopback address only, not on {0}; use 127.0.0.1:4180")]
    NotLoopback(SocketAddr),
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
        admin: SocketAddr,
        health: SocketAddr,
        console: Arc<Console>,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        if !admin.ip().is_loopback() {
            return Err(Error::NotLoopback(admin));
        }
        let (admin_listener, admin) = listen("admin", admin)?;
        let (health_listener, health) = listen("health", health)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("admin")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let token = Token::random();
        // Before anything answers: whoever finds the host ready can also find its admin port.
        let address = Address {
            admin,
            health,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        token.write(data_dir)?;
        address.write(data_dir)?;
        let (stop, stopped) = watch::channel(false);
        let admin_router = routes::router(Arc::clone(&console), token.clone());
        let health_router = health::router(console, metrics);
        let serving = {
            let _inside = runtime.enter();
            let admin =
                tokio::net::TcpListener::from_std(admin_listener).map_err(Error::Runtime)?;
            let health =
                tokio::net::TcpListener::from_std(health_listener).map_err(Error::Runtime)?;
            vec![
                runtime.spawn(port::serve(admin, admin_router, stopped.clone())),
                runtime.spawn(port::serve(health, health_router, stopped)),
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

fn listen(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen {
        what,
        address,
        source,
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
