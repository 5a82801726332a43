//! Heavy reads of one shard's connections on their way to the query pool: each connection's in its own order, few at a time.
//!
//! One connection that asks for much therefore neither fills the pool's queue nor makes the shard hold many large results for it.

use std::collections::VecDeque;

use crate::ingress::calls::Call;
use crate::messages::QueryInput;
use crate::rpc::{ConnectionKey, Method, RpcError};

/// Heavy reads of one connection that the pool has. On full: `Stall`, the others wait in the shard. Enough to keep every thread of a
/// usual pool busy; results of 128 MiB each are the worst case.
pub const RUNNING_PER_CONNECTION_MAX: usize = 8;
/// Bytes of parameters of waiting reads, and of what the pool's content was copied to, per shard. On full: `Reject` with -32005. A dozen of the largest bodies.
pub const PARAMS_BYTES_MAX: usize = 64 << 20;
/// Reply bytes that a connection has not read past which no further read of it starts.
pub const REPLY_BYTES_MAX: usize = 32 << 20;

/// One heavy read.
pub struct Query {
    pub call: Call,
    pub method: Method,
    /// Raw JSON.
    pub params: Vec<u8>,
    pub input: QueryInput,
}

impl Query {
    fn held_bytes(&self) -> usize {
        let input_bytes = match &self.input {
            // A filter's criteria are counted where it lives.
            QueryInput::Params | QueryInput::Filter(_) => 0,
            QueryInput::Pool(content) => content.bytes_len(),
        };
        self.params.len() + input_bytes
    }
}

#[derive(Default)]
struct Queue {
    /// Of the connection that uses the place now.
    generation: u32,
    running_count: usize,
    waiting: VecDeque<Query>,
}

/// Heavy reads of every connection of a shard. Places are those of the connections.
#[derive(Default)]
pub struct Queries {
    queues: Vec<Queue>,
    params_bytes: usize,
}

impl Queries {
    /// Puts a read behind those of its connection.
    ///
    /// # Errors
    /// The read and -32005 when the parameters of all waiting reads have as many bytes as they may.
    pub fn push(&mut self, query: Query) -> Result<(), Box<(Call, RpcError)>> {
        let bytes = self.params_bytes + query.held_bytes();
        if bytes > PARAMS_BYTES_MAX {
            let text = format!("parameters of heavy reads that wait have {bytes} bytes, limit {PARAMS_BYTES_MAX}");
            return Err(Box::new((query.call, RpcError::busy(text, 1_000))));
        }
        self.params_bytes = bytes;
        let ConnectionKey { connection, generation } = query.call.connection;
        if self.queues.len() <= connection as usize {
            self.queues.resize_with(connection as usize + 1, Queue::default);
        }
        let queue = &mut self.queues[connection as usize];
        if queue.generation != generation {
            // Answers to the connection before it no longer count.
            (queue.generation, queue.running_count) = (generation, 0);
        }
        queue.waiting.push_back(query);
        Ok(())
    }

    /// Whether a read of this connection waits and may start.
    #[must_use]
    pub fn is_ready(&self, key: ConnectionKey) -> bool {
        self.queues.get(key.connection as usize).is_some_and(|queue| {
            queue.generation == key.generation
                && queue.running_count < RUNNING_PER_CONNECTION_MAX
                && !queue.waiting.is_empty()
        })
    }

    /// Starts the next read of this connection, if one may.
    pub fn start(&mut self, key: ConnectionKey) -> Option<Query> {
        if !self.is_ready(key) {
            return None;
        }
        let queue = &mut self.queues[key.connection as usize];
        let query = queue.waiting.pop_front()?;
        queue.running_count += 1;
        self.params_bytes -= query.held_bytes();
        Some(query)
    }

    /// A read of this connection is over.
    pub fn end(&mut self, key: ConnectionKey) {
        if let Some(queue) = self.queues.get_mut(key.connection as usize)
            && queue.generation == key.generation
        {
            queue.running_count -= 1;
        }
    }

    /// Takes what waits of this connection, unstarted.
    pub fn close(&mut self, key: ConnectionKey) -> Vec<Call> {
        match self.queues.get_mut(key.connection as usize) {
            Some(queue) if queue.generation == key.generation => {
                self.params_bytes -= queue.waiting.iter().map(Query::held_bytes).sum::<usize>();
                queue.waiting.drain(..).map(|query| query.call).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes every read that waits, unstarted.
    pub fn take_waiting(&mut self) -> Vec<Call> {
        self.params_bytes = 0;
        self.queues.iter_mut().flat_map(|queue| queue.waiting.drain(..)).map(|query| query.call).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::json_rpc::Id;
    use crate::ingress::calls::{CallId, CallKind};
    use crate::ingress::envelope::Place;

    fn query(generation: u32, params_bytes: usize) -> Query {
        let call = Call {
            connection: ConnectionKey { connection: 2, generation },
            place: Place { request: 0, item: 0 },
            id: CallId::new(Id::Sent(b"1")),
            kind: CallKind::Query,
        };
        Query { call, method: Method::Call, params: vec![0; params_bytes], input: QueryInput::Params }
    }

    #[test]
    fn a_connection_has_few_running_and_the_next_one_in_its_place_starts_anew() {
        let mut queries = Queries::default();
        let (first, second) =
            (ConnectionKey { connection: 2, generation: 5 }, ConnectionKey { connection: 2, generation: 6 });
        for bytes in 0..=RUNNING_PER_CONNECTION_MAX {
            assert!(queries.push(query(5, bytes)).is_ok());
        }
        for bytes in 0..RUNNING_PER_CONNECTION_MAX {
            assert_eq!(queries.start(first).map(|query| query.params.len()), Some(bytes));
        }
        assert!(!queries.is_ready(first) && queries.start(first).is_none());
        queries.end(first);
        assert!(queries.is_ready(first) && !queries.is_ready(second));
        queries.close(first);
        assert!(!queries.is_ready(first));
        assert!(queries.push(query(6, 1)).is_ok());
        for _ in 0..RUNNING_PER_CONNECTION_MAX {
            queries.end(first);
        }
        assert!(queries.start(second).is_some() && queries.start(first).is_none());
        queries.end(second);
        assert_eq!(queries.params_bytes, 0);
    }

    #[test]
    fn parameters_that_wait_are_bounded() {
        let mut queries = Queries::default();
        assert!(queries.push(query(0, PARAMS_BYTES_MAX)).is_ok());
        let refused = queries.push(query(0, 1)).map_err(|refused| refused.1.message);
        let text = "parameters of heavy reads that wait have 67108865 bytes, limit 67108864";
        assert_eq!(refused, Err(text.to_owned()));
        queries.close(ConnectionKey { connection: 2, generation: 0 });
        assert!(queries.push(query(0, 1)).is_ok());
        assert_eq!((queries.take_waiting().len(), queries.params_bytes), (1, 0));
    }
}
