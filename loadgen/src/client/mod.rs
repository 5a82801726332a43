//! The ways to talk to a node: raw HTTP/1.1 replies and WebSocket frames, blocking JSON-RPC calls, subscriptions.

pub mod frames;

pub mod http;

pub mod rpc;

pub mod websocket;

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};

use crate::error::{Error, Result};

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, pipelined: replies come in order.
    Http,
    /// WebSocket: replies come in any order.
    #[value(name = "ws")]
    WebSocket,
}

impl Protocol {
    const fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::WebSocket => "ws",
        }
    }
}

/// The parts of an `http://` or `ws://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub url: String,
    pub protocol: Protocol,
    /// Host and port as in the URL: the value of the Host header.
    pub authority: String,
    pub path: String,
    host: String,
    port: u16,
}

impl Endpoint {
    /// Splits a URL, whose scheme must be that of the protocol.
    pub fn parse(url: &str, protocol: Protocol) -> Result<Self> {
        let refuse = |reason| Error::Url { url: url.to_owned(), reason };
        let (given, rest) =
            url.split_once("://").ok_or_else(|| refuse("it needs a scheme, as in http://127.0.0.1:6197"))?;
        if given == "https" || given == "wss" {
            return Err(refuse("TLS is not spoken here: measure the node itself by its plain port"));
        }
        if given != protocol.scheme() {
            return Err(refuse("the scheme must be http for --url and ws for --ws-url"));
        }
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        if authority.contains('@') || url.contains(char::is_whitespace) {
            return Err(refuse("user names and blanks are not supported"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| refuse("the port is not a number"))?)
            }
            _ => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(refuse("the host is missing"));
        }
        Ok(Self {
            url: url.to_owned(),
            protocol,
            authority: authority.to_owned(),
            path: path.to_owned(),
            host: host.to_owned(),
            port,
        })
    }

    /// Resolves the host; `localhost` is IPv4 first, because development nodes listen on 127.0.0.1.
    pub fn address(&self) -> Result<SocketAddr> {
        let failed = |cause| Error::Connect { url: self.url.clone(), cause };
        let mut found: Vec<SocketAddr> = (self.host.as_str(), self.port).to_socket_addrs().map_err(failed)?.collect();
        found.sort_by_key(SocketAddr::is_ipv6);
        found.first().copied().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
    }

    pub fn connect(&self) -> Result<TcpStream> {
        let connect = || {
            let stream =
                TcpStream::connect(self.address().map_err(|_| std::io::Error::from(std::io::ErrorKind::NotFound))?)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        connect().map_err(|cause| Error::Connect { url: self.url.clone(), cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, scheme: &str, expected: Option<(&str, u16, &str)>) {
        let protocol = if scheme == "http" { Protocol::Http } else { Protocol::WebSocket };
        let endpoint = Endpoint::parse(url, protocol).ok();
        let parts = endpoint.as_ref().map(|e| (e.host.as_str(), e.port, e.path.as_str()));
        assert_eq!(parts, expected, "{url}");
    }

    #[test]
    fn urls() {
        check("http://127.0.0.1:6197", "http", Some(("127.0.0.1", 6197, "/")));
        check("http://localhost:8545/rpc/v1?key=x", "http", Some(("localhost", 8545, "/rpc/v1?key=x")));
        check("http://[::1]:8545/", "http", Some(("::1", 8545, "/")));
        check("http://[::1]", "http", Some(("::1", 80, "/")));
        check("http://node", "http", Some(("node", 80, "/")));
        check("ws://127.0.0.1:6197", "ws", Some(("127.0.0.1", 6197, "/")));
        check("ws://127.0.0.1:6197", "http", None);
        check("https://node", "http", None);
        check("http://:8545", "http", None);
        check("http://node:port", "http", None);
        check("http://user@node", "http", None);
        check("127.0.0.1:6197", "http", None);
    }
}
