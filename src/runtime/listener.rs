//! Listeners of the servers beside the shards: metrics, admin, the development L1.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel has set up and nobody has taken yet. On full: `Reject`, the peer tries again.
const BACKLOG: i32 = 128;

/// A listener that never blocks, from its first moment on: the container's profile has no `ioctl`, with which a listener would be changed later.
///
/// # Errors
/// The address is taken, or not of this machine.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Connections of the process before this one may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
