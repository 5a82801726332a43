//! Why a request is refused before any of it reaches JSON-RPC, and what the peer is told.

/// Reason of a refusal. Each has one status and one text; the connection closes after it unless the request carried no body
/// and was well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    RequestLineMalformed,
    MethodNotToken,
    TargetMalformed,
    BareLf,
    BareCr,
    NulByte,
    ObsFold,
    SpaceBeforeColon,
    HeaderMalformed,
    HeaderNameNotToken,
    HeaderValueControl,
    HeaderRepeated,
    HostMissing,
    HostRepeated,
    LengthMalformed,
    LengthsDiffer,
    LengthAndChunked,
    ChunkedInHttp10,
    ChunkSizeMalformed,
    ChunkLineTooLong,
    ChunkExtensionsTooLong,
    ChunkDataUnterminated,
    WebSocketKeyMalformed,
    HostNotAllowed,
    OriginNotAllowed,
    PathUnknown,
    MethodNotAllowed,
    RequestTimeout,
    BodyTooLarge,
    RequestLineTooLong,
    ContentTypeNotJson,
    ExpectationUnknown,
    WebSocketVersionUnknown,
    HeadTooLarge,
    TransferEncodingUnknown,
    MemoryUsedUp,
    VersionNotSupported,
}

impl Refusal {
    /// All reasons, in order of status.
    pub const ALL: [Self; 37] = [
        Self::RequestLineMalformed,
        Self::MethodNotToken,
        Self::TargetMalformed,
        Self::BareLf,
        Self::BareCr,
        Self::NulByte,
        Self::ObsFold,
        Self::SpaceBeforeColon,
        Self::HeaderMalformed,
        Self::HeaderNameNotToken,
        Self::HeaderValueControl,
        Self::HeaderRepeated,
        Self::HostMissing,
        Self::HostRepeated,
        Self::LengthMalformed,
        Self::LengthsDiffer,
        Self::LengthAndChunked,
        Self::ChunkedInHttp10,
        Self::ChunkSizeMalformed,
        Self::ChunkLineTooLong,
        Self::ChunkExtensionsTooLong,
        Self::ChunkDataUnterminated,
        Self::WebSocketKeyMalformed,
        Self::HostNotAllowed,
        Self::OriginNotAllowed,
        Self::PathUnknown,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::RequestLineTooLong,
        Self::ContentTypeNotJson,
        Self::ExpectationUnknown,
        Self::WebSocketVersionUnknown,
        Self::HeadTooLarge,
        Self::TransferEncodingUnknown,
        Self::MemoryUsedUp,
        Self::VersionNotSupported,
    ];

    /// HTTP status of the reply.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::HostNotAllowed | Self::OriginNotAllowed => 403,
            Self::PathUnknown => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::RequestLineTooLong => 414,
            Self::ContentTypeNotJson => 415,
            Self::ExpectationUnknown => 417,
            Self::WebSocketVersionUnknown => 426,
            Self::HeadTooLarge => 431,
            Self::TransferEncodingUnknown => 501,
            Self::MemoryUsedUp => 503,
            Self::VersionNotSupported => 505,
            _ => 400,
        }
    }

    /// Body of the reply, one line of text.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::RequestLineMalformed => "request line is not 'METHOD target HTTP/1.1'",
            Self::MethodNotToken => "method is not a token",
            Self::TargetMalformed => "request target is malformed",
            Self::BareLf => "line ends in LF without CR",
            Self::BareCr => "CR without LF",
            Self::NulByte => "NUL byte in the head",
            Self::ObsFold => "folded header line",
            Self::SpaceBeforeColon => "white space before the colon of a header",
            Self::HeaderMalformed => "header line without a name or colon",
            Self::HeaderNameNotToken => "header name is not a token",
            Self::HeaderValueControl => "control character in a header value",
            Self::HeaderRepeated => "header repeated that may occur once",
            Self::HostMissing => "Host header missing",
            Self::HostRepeated => "more than one Host header",
            Self::LengthMalformed => "Content-Length is not a decimal number of at most 19 digits",
            Self::LengthsDiffer => "differing Content-Length headers",
            Self::LengthAndChunked => "Content-Length together with Transfer-Encoding",
            Self::ChunkedInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::ChunkSizeMalformed => "chunk size is malformed",
            Self::ChunkLineTooLong => "chunk size line too long",
            Self::ChunkExtensionsTooLong => "chunk extensions too long",
            Self::ChunkDataUnterminated => "chunk data not followed by CRLF",
            Self::WebSocketKeyMalformed => "Sec-WebSocket-Key is not 16 bytes of base64",
            Self::HostNotAllowed => "invalid host specified",
            Self::OriginNotAllowed => "origin not allowed",
            Self::PathUnknown => "not found",
            Self::MethodNotAllowed => "method not allowed",
            Self::RequestTimeout => "request not received in time",
            Self::BodyTooLarge => "request body too large",
            Self::RequestLineTooLong => "request target too long",
            Self::ContentTypeNotJson => "Content-Type must be application/json",
            Self::ExpectationUnknown => "Expect is not 100-continue",
            Self::WebSocketVersionUnknown => "Sec-WebSocket-Version must be 13",
            Self::HeadTooLarge => "request header fields too large",
            Self::TransferEncodingUnknown => "Transfer-Encoding is not chunked",
            Self::MemoryUsedUp => "memory for requests is used up: try again",
            Self::VersionNotSupported => "HTTP version not supported",
        }
    }
}

/// Reason phrase of a status that this server sends.
#[must_use]
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}
