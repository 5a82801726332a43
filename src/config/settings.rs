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
    aliased(
        "l2.chain-id",
        "",
        "Chain id that the genesis must have; another one is an error at start. Unset: whatever it has",
        "L2_CHAIN_ID",
    ),
    setting("dev.fork", "osaka", "Rules of the development genesis: prague or osaka"),
    setting(
        "execution.mode",
        "embedded",
        "Who builds and who checks: embedded (we, nobody else), verified (we, and an execution client by the Engine API before a block is latest), delegated (the execution client builds what we order, we check)",
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
        "execution.reset-command",
        "",
        "Program that gives the execution client a new database (stop, wipe, init, start) when nothing else helps; run without arguments. Unset: the log asks for it",
    ),
    setting(
        "execution.pool-poll-ms",
        "200",
        "How often the execution client is asked for transactions that were sent to its own JSON-RPC; they enter our pool. 0: never",
    ),
    setting(
        "execution.unchecked-blocks-max",
        "64",
        "Sealed blocks that may wait for the execution client's verdict; more hold building and admission (-32005)",
    ),
    setting(
        "l1.mode",
        "",
        "Layer 1: off (blocks are final when they are sealed), embedded (a development L1 in this process), remote. Unset: embedded for `dev`; for `run` remote when l1.rpc-url is set, else off",
    ),
    aliased(
        "l1.rpc-url",
        "",
        "Endpoints of L1, comma-separated: http(s):// to ask, the first one first; ws(s):// says when there is a new head",
        "L1_RPC_URL",
    ),
    aliased("l1.chain-id", "", "Chain id of L1; must be the genesis's. Unset: the genesis's", "L1_CHAIN_ID"),
    setting(
        "l1.execute-address",
        "0x0000000000000000000000000000000000000012",
        "Where L1 has EXECUTE, which an ExecuteTx calls: asked at the start, and a warning when nothing is there",
    ),
    aliased("l1.key", "", "Key that pays for batches, 64 hex digits; give it by the environment", "SEQUENCER_KEY"),
    setting("l1.key-file", "", "File with that key, mode 0600"),
    setting("l1.keystore", "", "Encrypted keystore with that key, mode 0600"),
    setting("l1.keystore-password-file", "", "File with the keystore's password, mode 0600"),
    setting("l1.poll-ms", "1000", "How often L1's head is asked for where no ws(s):// endpoint tells"),
    setting("l1.timeout-ms", "10000", "Time of one call to L1"),
    setting(
        "l1.origin-depth",
        "4",
        "L1 blocks between L1's head and the one that new blocks stand on; fewer reorganisations of L1 take blocks back when it is larger. `dev`: 0",
    ),
    setting("l1.start-without", "false", "true builds after a start before L1 has answered"),
    setting("l1.spend-eth-per-hour-max", "10", "Most that posting may cost in an hour of L1, in ETH"),
    setting(
        "l1.tx-cost-eth-max",
        "1",
        "Most that one ExecuteTx may cost at its fee cap, in ETH; pools of L1 refuse more than 1 by default",
    ),
    setting("l1.tip-gwei", "0.01", "Least priority fee per gas, in gwei; raised when a batch waits"),
    setting("l1.dev-port", "8545", "Port of the embedded development L1 on 127.0.0.1. 0: any that is free"),
    setting(
        "l1.dev-mode",
        "strict",
        "How the embedded L1 judges batches: strict (re-executes them), or compat (as the fork does)",
    ),
    setting("l1.dev-block-ms", "1000", "Block time of the embedded L1"),
    setting("l1.dev-mainnet-like", "false", "true: the embedded L1 has blocks of 12 s and 60 Mgas"),
    setting("settlement.post", "true", "false derives the chain from L1 and posts nothing"),
    aliased(
        "settlement.batch-bytes-max",
        "131072",
        "Bytes of one ExecuteTx; 131072 is what L1 pools take",
        "BATCH_SIZE_LIMIT",
    ),
    setting("settlement.batch-gas-max", "16777216", "L1 gas of one ExecuteTx"),
    aliased(
        "settlement.batch-age-ms",
        "2000",
        "A batch is closed this long after its first segment, however small it is. `dev`: 500",
        "BATCH_INTERVAL_MS",
    ),
    setting("settlement.batch-segments-max", "256", "Segments of one batch"),
    setting("settlement.in-flight-max", "8", "ExecuteTx that are sent and have no block"),
    setting("settlement.compression", "zstd", "Form of a batch's data: zstd, or stored"),
    setting(
        "settlement.unsafe-blocks-max",
        "3600",
        "Blocks that may be sealed and not safe; more hold building and admission (-32005)",
    ),
    setting("settlement.backlog-bytes-max", "1073741824", "Bytes of blocks that may wait to be posted; as above"),
    setting(
        "witness.dir",
        "",
        "Folder of the witnesses of blocks that L1 is slow to take. Unset: witnesses in the data directory",
    ),
    setting(
        "witness.keep-behind-blocks",
        "48",
        "A block that is not in a batch when it is this far behind the newest has its witness written to a file",
    ),
    setting(
        "witness.kept-bytes-max",
        "34359738368",
        "Bytes of these files; with that many, building and admission are held (-32005)",
    ),
    aliased(
        "limits.requests-per-second",
        "0",
        "Requests a second of all peers together, items of batches singly; more are refused with -32005. 0: no limit",
        "RATE_LIMIT_PER_SECOND",
    ),
    setting(
        "limits.requests-per-second-per-address",
        "0",
        "Requests a second of one address, or of one IPv6 network of 64 bits. 0: no limit",
    ),
    setting(
        "admin.port",
        "",
        "Port of the admin calls on 127.0.0.1; 0: any that is free; off: none. Unset: 6198 for `run`, off for `dev` and `follow`",
    ),
    setting(
        "admin.token-file",
        "",
        "File with the bearer token of the admin port; made if it is missing. Unset: admin.token in the data directory",
    ),
    aliased(
        "admin.emergency-halt",
        "false",
        "true: nothing is admitted or built from the start on; reads go on",
        "EMERGENCY_HALT",
    ),
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
    setting(
        "http.batch-wait-us",
        "100",
        "Longest that a transaction waits for others to be recovered with, when more connections send than that apart; who sends alone never waits",
    ),
    setting("http.idle-timeout-ms", "120000", "Time a connection may stay open without a request"),
    setting("rpc.debug", "false", "true serves debug_*. `dev`: true"),
    setting(
        "rpc.pool-content",
        "false",
        "true serves txpool_content, txpool_contentFrom and txpool_inspect. `dev`: true",
    ),
    setting("metrics.host", "", "Address that metrics and health listen on. Unset: as http.host"),
    aliased(
        "metrics.port",
        "9090",
        "Port of metrics and health (/metrics, /livez, /readyz, /healthz). 0: any that is free (`dev`), off: none",
        "METRICS_PORT",
    ),
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
    aliased(
        "state.dir",
        "",
        "Directory of the state files, on a disk of its own for example. Unset: `state` in the data directory",
        "STATE_DB_PATH",
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
    setting(
        "stop.delay-ms",
        "0",
        "Time between the signal to stop, from which on /readyz answers 503, and the end of admission",
    ),
    setting(
        "stop.limit-ms",
        "60000",
        "Longest time from the end of admission to the end of the process; exit 1 past it",
    ),
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
