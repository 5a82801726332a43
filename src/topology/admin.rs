//! Opens the admin port on loopback, with its token, and spawns its thread.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::levers::Levers;
use super::{Cores, LaunchError, Shared, Worker, settlement, spawn};
use crate::admin::halt::HaltFiles;
use crate::admin::rpc::Admin;
use crate::admin::server::{self, AdminSeat};
use crate::admin::token::Token;
use crate::config::Config;
use crate::ring::Doorbell;
use crate::runtime::listener;

/// Bound before the first thread starts: a port that is taken ends the start.
pub struct AdminPort {
    listener: TcpListener,
    address: SocketAddr,
    token: Token,
    token_file: PathBuf,
}

/// `None` where it is off.
///
/// # Errors
/// A token that cannot be read or made, or that others may read; a port that is taken.
pub fn open(config: &Config, data_dir: &Path) -> Result<Option<AdminPort>, LaunchError> {
    let Some(port) = config.admin.port else { return Ok(None) };
    let token_file = config.admin.token_file.clone().unwrap_or_else(|| data_dir.join("admin.token"));
    let token = Token::load_or_create(&token_file)?;
    // Never another address: who can reach it is on this machine.
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let fault = |source| LaunchError::AdminListen { address: wanted, source };
    let listener = listener::listen(wanted).map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    Ok(Some(AdminPort { listener, address, token, token_file }))
}

impl AdminPort {
    /// Where it listens, and the file of its token.
    pub fn at(&self) -> (SocketAddr, PathBuf) {
        (self.address, self.token_file.clone())
    }

    /// Spawns the `admin` thread.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn spawn(
        self,
        config: &Config,
        data_dir: &Path,
        levers: &Levers,
        shared: &Arc<Shared>,
        builder_bell: &Arc<Doorbell>,
        cores: &Cores,
    ) -> Result<Worker, LaunchError> {
        let admin = Admin {
            shared: Arc::clone(shared),
            builder_bell: Arc::clone(builder_bell),
            files: HaltFiles::new(data_dir),
            set_log_filter: Arc::clone(&levers.set_log_filter),
            follows: config.follows,
            posts: settlement::posts(config),
        };
        let seat = AdminSeat { listener: self.listener, token: self.token, admin };
        spawn("admin", cores.unpinned(), move || server::run(seat))
    }
}
