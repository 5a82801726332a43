//! The JSON-RPC 2.0 envelope around results and errors, and how a reply finds its place in a connection.

use crate::codec::json_rpc::Id;
use crate::ingress::connection::{Completion, Replies};
use crate::rpc::RpcError;

/// Where inside a connection a reply belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub request: u32,
    /// Index inside a batch, 0 otherwise.
    pub item: u32,
}

/// Answers with the result that `write` appends. A notification (`Id::Absent`) is completed without an answer.
pub fn reply_result(replies: &mut Replies, place: Place, id: Id<'_>, write: impl FnOnce(&mut Vec<u8>)) {
    let Id::Sent(id) = id else { return complete_notification(replies, place) };
    let completion = replies.complete(place.request, place.item, |out| {
        open(id, out);
        out.extend_from_slice(br#","result":"#);
        write(out);
        out.push(b'}');
    });
    if completion == Completion::TooLarge {
        reply_too_large(replies, place, id);
    }
}

/// Answers with an error. A notification is completed without an answer.
pub fn reply_error(replies: &mut Replies, place: Place, id: Id<'_>, error: &RpcError) {
    let Id::Sent(id) = id else { return complete_notification(replies, place) };
    // The data of a revert may be megabytes, so an error has the bound of any reply.
    if replies.complete(place.request, place.item, |out| write_error(id, error, out)) == Completion::TooLarge {
        reply_too_large(replies, place, id);
    }
}

fn reply_too_large(replies: &mut Replies, place: Place, id: &[u8]) {
    let error = RpcError::limit("batch response too large");
    // A stale place has nobody to tell; this always fits.
    let _ = replies.complete_short(place.request, place.item, |out| write_error(id, &error, out));
}

/// Appends a whole error response.
pub fn write_error(id: &[u8], error: &RpcError, out: &mut Vec<u8>) {
    open(id, out);
    out.extend_from_slice(br#","error":"#);
    error.write(out);
    out.push(b'}');
}

fn complete_notification(replies: &mut Replies, place: Place) {
    // As above: nobody is told.
    let _ = replies.complete(place.request, place.item, |_| {});
}

fn open(id: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id);
}
