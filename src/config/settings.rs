//! Every setting: its name, default and meaning. Flags, environment variables and file keys are all derived from this table.

/// One setting. Flag `--<name>`, environment `SEQUENCER_<NAME>` with `.` and `-` as `_`, file key `<name>`.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// `group.kebab-name`, or a plain `kebab-name` outside every group.
    pub name: &'static str,
    /// Value when nobody sets it, in the syntax of a flag. Empty: unset.
    pub default: &'static str,
    pub help: &'static str,
    /// Further environment variable that sets it, for those who come from the Zig prototype.
    pub env_alias: Option<&'static str>,
}

const fn setting(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, default, help, env_alias: None }
}

const fn aliased(name: &'static str, default: &'static str, help: &'static str, alias: &'static str) -> Setting {
    Setting { name, default, help, env_alias: Some(alias) }
}

pub const SETTINGS: &[Setting] = &[
    setting(
        "data-dir",
        "",
        "Directory that keeps the chain between runs. Unset: `dev` uses a temporary one and removes it",
    ),
    setting(
        "genesis",
        "",
        "go-ethereum genesis file of the chain. Unset: the development genesis (`sequencer genesis`)",
    ),
    setting("dev.fork", "osaka", "Rules of the development genesis: prague or osaka"),
    setting(
        "execution.mode",
        "embedded",
        "Who checks blocks before they are latest: embedded (nobody else), verified (an execution client, by the Engine API)",
    ),
    setting(
        "execution.engine-url",
        "",
        "Engine API of the execution client: http://host:port, or the path of its IPC socket. Unset: 127.0.0.1 and execution.engine-port",
    ),
    aliased("execution.engine-port", "8551", "Port of the Engine API on 127.0.0.1", "L2_ENGINE_API_PORT"),
    aliased(
        "execution.rpc-url",
        "",
        "JSON-RPC of the execution client with the debug namespace, for debug_setHead. Unset: execution.engine-url",
        "L2_RPC_URL",
    ),
    aliased(
        "execution.jwt-secret",
        "",
        "File with the 32 bytes (hex) shared with the execution client; made if it is missing. Unset: jwt.hex in the data directory",
        "L2_JWT_SECRET",
    ),
    setting(
        "execution.allow-remote-plaintext",
        "false",
        "true sends plain HTTP to an execution client that is not on this machine",
    ),
    setting("execution.new-payload-timeout-ms", "8000", "Time of one engine_newPayload"),
    setting(
        "execution.new-payload-retries",
        "3",
        "Repetitions of engine_newPayload before the connection counts as lost",
    ),
    setting("execution.forkchoice-timeout-ms", "8000", "Time of one engine_forkchoiceUpdated"),
    setting(
        "execution.forkchoice-retries",
        "3",
        "Repetitions of engine_forkchoiceUpdated before the connection counts as lost",
    ),
    setting("execution.read-timeout-ms", "2000", "Time of every other call to the execution client"),
    setting("execution.read-retries", "3", "Repetitions of those before the connection counts as lost"),
    setting("execution.backoff-ms", "100", "First pause after a failed call; doubled with each further one"),
    setting("execution.backoff-max-ms", "5000", "Longest pause between two attempts to reach the execution client"),
    setting(
        "execution.stall-ms",
        "10000",
        "An execution client that answers and does not get on for this long has its head set by debug_setHead",
    ),
    setting(
        "execution.unchecked-blocks-max",
        "64",
        "Sealed blocks that may wait for the execution client's verdict; more hold building and admission (-32005)",
    ),
    setting("l1.mode", "off", "Layer 1: off (the embedded development L1 and real ones come with settlement)"),
    aliased(
        "http.host",
        "",
        "Address that JSON-RPC listens on. Unset: 127.0.0.1 for `dev`, 0.0.0.0 for `run`",
        "API_HOST",
    ),
    aliased("http.port", "6197", "Port of JSON-RPC over HTTP and WebSocket", "API_PORT"),
    setting("http.shards", "0", "Ingress shards, one thread each. 0: processor cores less two, at least one"),
    setting("http.vhosts", "", "Host names accepted beside localhost and IP addresses, comma-separated; * accepts all"),
    setting("http.cors", "", "true answers browsers of any origin. Unset: true for `dev`, false for `run`"),
    setting("http.connections-max", "10000", "Open connections per process; more are refused with 503"),
    setting("http.body-bytes-max", "5242880", "Bytes of one request body"),
    setting("http.batch-items-max", "1000", "Requests in one JSON-RPC batch"),
    setting("http.idle-timeout-ms", "120000", "Time a connection may stay open without a request"),
    aliased("block.gas-limit", "", "Gas limit that blocks move towards. Unset: the genesis block's", "BLOCK_GAS_LIMIT"),
    setting("block.interval-ms", "1000", "Time from a block's first transaction to its close"),
    setting("block.empty-interval-ms", "0", "An empty block is made when none was for this long. 0: never"),
    setting(
        "block.timestamp-lead-s",
        "1",
        "How far a block's timestamp may run ahead of the clock; above 1 only for tests",
    ),
    setting("block.coinbase", "0x0000000000000000000000000000000000000000", "Account that receives the tips"),
    setting("block.extra-data", "0x", "extraData of blocks, at most 32 bytes of hex"),
    setting("builder.execute", "true", "false admits transactions and places none: measures admission alone"),
    setting("builder.order", "priority-fee", "Order of ready transactions: priority-fee or arrival"),
    aliased("mempool.transactions-max", "131072", "Transactions in the pool", "MEMPOOL_MAX_SIZE"),
    setting("mempool.bytes-max", "268435456", "Encoded bytes in the pool"),
    setting("mempool.per-sender-max", "4096", "Transactions of one sender in the pool"),
    setting(
        "journal.sync",
        "always",
        "always: what is acknowledged survives a power cut. off: it survives a crash of the process only; for measurements",
    ),
    setting(
        "journal.engine",
        "pwritev2",
        "How a group is written: pwritev2, or io-uring (for disks with FUA; measure with `cargo bench --bench journal`)",
    ),
    aliased(
        "journal.dir",
        "",
        "Directory of the journal, on a disk of its own for example. Unset: `journal` in the data directory",
        "MEMPOOL_WAL_PATH",
    ),
    setting("journal.segment-bytes", "67108864", "Size of a journal segment, a multiple of 4096"),
    setting(
        "journal.segments-kept",
        "12",
        "Segments held before transactions that still wait in the pool are copied forward to free the oldest",
    ),
    setting(
        "state.dir",
        "",
        "Directory of the state files, on a disk of its own for example. Unset: `state` in the data directory",
    ),
    setting("state.segment-bytes", "67108864", "Size of a segment of a new state, a power of two"),
    setting(
        "crypto.recovery",
        "auto",
        "How senders are recovered: auto (eight at once where the processor has AVX-512 IFMA), or libsecp256k1",
    ),
    setting(
        "crypto.recovery-check-interval",
        "1000",
        "Of how many recoveries in vectors one is compared with libsecp256k1; one disagreement ends their use. 0: none",
    ),
    setting("query.threads", "2", "Threads for heavy reads (eth_call, eth_getLogs, …)"),
    setting("query.gas-max", "50000000", "Gas of one eth_call or eth_estimateGas"),
    setting("query.timeout-ms", "2000", "Time of one heavy read"),
    setting("hash.threads", "0", "Threads of the hash pool. 0: one for every two cores, at least one"),
    setting("status.retention-s", "3600", "How long the end of a transaction can be asked for"),
    setting("tuning.wait", "park", "What idle threads do: park, or spin a moment before it (needs a core each)"),
    setting("tuning.pin", "auto", "Pin shards and builder to cores: auto (when there is a core for each), on, off"),
    setting("log.level", "info", "error, warn, info, debug, trace, or a tracing filter"),
    setting("log.format", "text", "text or json"),
];

/// The environment variable of a setting.
#[must_use]
pub fn env_name(name: &str) -> String {
    format!("SEQUENCER_{}", name.replace(['.', '-'], "_").to_uppercase())
}

/// The setting of that name, or the nearest one as a suggestion.
///
/// # Errors
/// The nearest name.
pub fn find(name: &str) -> Result<&'static Setting, &'static str> {
    SETTINGS.iter().find(|setting| setting.name == name).ok_or_else(|| {
        let nearest = SETTINGS.iter().min_by_key(|setting| edit_distance(name, setting.name));
        nearest.map_or("", |setting| setting.name)
    })
}

/// Levenshtein distance in characters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.iter().enumerate() {
            let substitute = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        assert_eq!(find("http.prot").expect_err("unknown"), "http.port");
        assert_eq!(find("blok.gas-limit").expect_err("unknown"), "block.gas-limit");
        assert!(find("block.gas-limit").is_ok());
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }

    #[test]
    fn names_are_unique_and_so_are_their_variables() {
        let mut names: Vec<String> = SETTINGS.iter().map(|setting| env_name(setting.name)).collect();
        names.extend(SETTINGS.iter().filter_map(|setting| setting.env_alias.map(str::to_owned)));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
