//! Bytes in, values out: formats that peers send. Nothing here has a thread, a clock or a socket.

pub mod hex;
pub mod http;
pub mod json_rpc;
pub mod transaction;
pub mod websocket;
