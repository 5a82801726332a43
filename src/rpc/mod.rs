//! The JSON-RPC methods.

/// A JSON-RPC error as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    pub code: i32,
    pub message: String,
    /// Raw JSON of `data`, when there is any.
    pub data: Option<String>,
}

/// Every method that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {}
