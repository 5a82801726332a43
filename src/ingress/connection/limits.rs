//! Every bound of a connection, and what the operator allows browsers to do.

use crate::codec::http::HttpLimits;
use crate::codec::websocket::WebSocketLimits;

const SECOND_NS: u64 = 1_000_000_000;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub http: HttpLimits,
    pub websocket: WebSocketLimits,
    /// Requests being answered at the same time; on full: `Stall` (nothing more is read). Deep enough to hide a round trip at full load.
    pub requests_outstanding_max: usize,
    /// Calls being answered at the same time, items of batches counted singly; on full: `Stall`. One largest batch, so that replies
    /// waiting in memory are bounded by two of them.
    pub items_outstanding_max: usize,
    /// Items of one JSON-RPC batch, as go-ethereum. The caller refuses more with -32600; here it is asserted.
    pub batch_items_max: usize,
    /// Bytes of one batch reply, as go-ethereum. On full: `Reject`, the item is answered by a short error instead.
    pub batch_reply_bytes_max: usize,
    /// Unsent bytes past which no further request is read. On full: `Stall`.
    pub output_pause_bytes: usize,
    /// Unsent bytes past which a subscriber is too slow. On full: `Reject`, the connection is closed, because a gap in a
    /// subscription would go unnoticed.
    pub send_queue_bytes_max: usize,
    /// Capacity a buffer keeps between requests of a busy connection: a batch of 100 transfers fits.
    pub buffer_keep_bytes: usize,
    /// After this long without a byte a connection gives its buffers back, so that idle ones cost next to nothing.
    pub buffer_release_ns: u64,
    /// From accept to the first byte: longer than a client that opens connections ahead of need would wait.
    pub first_byte_ns: u64,
    /// From the first byte of a request to the end of its head.
    pub head_ns: u64,
    /// Between two receptions inside a request.
    pub between_bytes_ns: u64,
    /// From the first byte of a request or message to its end: 5 MiB at 90 kB/s.
    pub request_ns: u64,
    /// From one request to the next. Longer than the 60 s that load balancers keep idle connections, so that they close first.
    pub idle_ns: u64,
    /// Without progress of a write.
    pub write_ns: u64,
    /// From the last byte written to closing: the peer reads the reply before its unread bytes make the kernel reset the connection.
    pub linger_ns: u64,
    /// Dropped meanwhile: more than the largest body that may have been on its way, and the peer is not reading anyway.
    pub linger_bytes_max: u64,
    /// Silence on a WebSocket after which it is pinged; after as much again it is closed.
    pub ping_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            http: HttpLimits::default(),
            websocket: WebSocketLimits::default(),
            requests_outstanding_max: 64,
            items_outstanding_max: 1_000,
            batch_items_max: 1_000,
            batch_reply_bytes_max: 25_000_000,
            output_pause_bytes: 1 << 20,
            send_queue_bytes_max: 1 << 20,
            buffer_keep_bytes: 32 << 10,
            buffer_release_ns: SECOND_NS,
            first_byte_ns: 30 * SECOND_NS,
            head_ns: 10 * SECOND_NS,
            between_bytes_ns: 10 * SECOND_NS,
            request_ns: 60 * SECOND_NS,
            idle_ns: 120 * SECOND_NS,
            write_ns: 30 * SECOND_NS,
            linger_ns: SECOND_NS,
            linger_bytes_max: 16 << 20,
            ping_ns: 30 * SECOND_NS,
        }
    }
}

/// What one listener accepts. Shared by its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub limits: Limits,
    /// Host names answered besides `localhost` and IP literals; `*` = any.
    pub vhosts: Vec<String>,
    /// Origins that browsers may call from; `*` = any, empty = CORS off.
    pub cors_origins: Vec<String>,
}

impl Policy {
    /// Position in `cors_origins` of the entry that allows `origin`.
    #[must_use]
    pub fn cors_index(&self, origin: &[u8]) -> Option<usize> {
        if origin.is_empty() {
            return None;
        }
        self.cors_origins.iter().position(|allowed| allowed == "*" || allowed.as_bytes().eq_ignore_ascii_case(origin))
    }
}
