//! The table of methods: name, and which thread answers.

/// Which thread answers a method when its parameters do not say otherwise (a `pending` tag asks the builder core).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The ingress shard, from the published heads: bounded work, no disk.
    Inline,
    /// The builder core, by a ring request; a query thread when the builder core does not hold the answer any more.
    Builder,
    /// A thread of the query pool.
    Query,
    /// The ingress shard decodes, the builder core admits.
    Submit,
    /// The ingress shard; the connection must be a WebSocket.
    Subscribe,
    /// The ingress shard that made the filter, asked over a ring where it is another one; what is new is read by a query thread.
    Filter,
    /// The execution client, asked by a thread of the query pool; `verified` only.
    Proxy,
    /// A thread of the query pool, from what the `l1` thread shows.
    Settlement,
}

impl Class {
    /// The word that `docs/RPC.md` uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Builder => "builder",
            Self::Query => "query",
            Self::Submit => "submit",
            Self::Subscribe => "subscribe",
            Self::Filter => "filter",
            Self::Proxy => "proxy",
            Self::Settlement => "settlement",
        }
    }
}

macro_rules! methods {
    ($($variant:ident $name:literal $class:ident),+ $(,)?) => {
        /// Every method that is served.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Method {
            $($variant),+
        }

        impl Method {
            /// Every method, in the order of the table.
            pub const ALL: &'static [Method] = &[$(Method::$variant),+];

            /// The method of that name, as sent: case matters.
            #[must_use]
            pub fn from_name(name: &[u8]) -> Option<Self> {
                match std::str::from_utf8(name).ok()? {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }

            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            #[must_use]
            pub fn class(self) -> Class {
                match self {
                    $(Self::$variant => Class::$class),+
                }
            }
        }
    };
}

methods! {
    SendRawTransaction "eth_sendRawTransaction" Submit,
    SendRawTransactionSync "eth_sendRawTransactionSync" Submit,
    SendRawTransactionConditional "eth_sendRawTransactionConditional" Submit,
    ChainId "eth_chainId" Inline,
    BlockNumber "eth_blockNumber" Inline,
    GetBalance "eth_getBalance" Inline,
    GetTransactionCount "eth_getTransactionCount" Inline,
    GetCode "eth_getCode" Inline,
    GetStorageAt "eth_getStorageAt" Inline,
    GasPrice "eth_gasPrice" Inline,
    MaxPriorityFeePerGas "eth_maxPriorityFeePerGas" Inline,
    BlobBaseFee "eth_blobBaseFee" Inline,
    Syncing "eth_syncing" Inline,
    Accounts "eth_accounts" Inline,
    GetTransactionByHash "eth_getTransactionByHash" Builder,
    GetRawTransactionByHash "eth_getRawTransactionByHash" Builder,
    GetTransactionReceipt "eth_getTransactionReceipt" Query,
    Call "eth_call" Query,
    EstimateGas "eth_estimateGas" Query,
    CreateAccessList "eth_createAccessList" Query,
    GetProof "eth_getProof" Query,
    FeeHistory "eth_feeHistory" Query,
    GetLogs "eth_getLogs" Query,
    GetBlockByNumber "eth_getBlockByNumber" Query,
    GetBlockByHash "eth_getBlockByHash" Query,
    GetBlockReceipts "eth_getBlockReceipts" Query,
    GetBlockTransactionCountByNumber "eth_getBlockTransactionCountByNumber" Query,
    GetBlockTransactionCountByHash "eth_getBlockTransactionCountByHash" Query,
    GetUncleCountByBlockNumber "eth_getUncleCountByBlockNumber" Query,
    GetUncleCountByBlockHash "eth_getUncleCountByBlockHash" Query,
    GetTransactionByBlockHashAndIndex "eth_getTransactionByBlockHashAndIndex" Query,
    GetTransactionByBlockNumberAndIndex "eth_getTransactionByBlockNumberAndIndex" Query,
    NewFilter "eth_newFilter" Filter,
    NewBlockFilter "eth_newBlockFilter" Filter,
    NewPendingTransactionFilter "eth_newPendingTransactionFilter" Filter,
    GetFilterChanges "eth_getFilterChanges" Filter,
    GetFilterLogs "eth_getFilterLogs" Filter,
    UninstallFilter "eth_uninstallFilter" Filter,
    Subscribe "eth_subscribe" Subscribe,
    Unsubscribe "eth_unsubscribe" Subscribe,
    NetVersion "net_version" Inline,
    NetListening "net_listening" Inline,
    ClientVersion "web3_clientVersion" Inline,
    Sha3 "web3_sha3" Inline,
    RpcModules "rpc_modules" Inline,
    TxpoolStatus "txpool_status" Builder,
    TxpoolContent "txpool_content" Builder,
    TxpoolContentFrom "txpool_contentFrom" Builder,
    TxpoolInspect "txpool_inspect" Builder,
    GetTransactionStatus "sequencer_getTransactionStatus" Builder,
    ExecutionStatus "sequencer_executionStatus" Inline,
    SettlementStatus "sequencer_settlementStatus" Settlement,
    GetBatchByBlock "sequencer_getBatchByBlock" Settlement,
    SyncStatus "optimism_syncStatus" Settlement,
    DebugGetRawBlock "debug_getRawBlock" Query,
    DebugGetRawHeader "debug_getRawHeader" Query,
    DebugGetRawTransaction "debug_getRawTransaction" Query,
    DebugGetRawReceipts "debug_getRawReceipts" Query,
    DebugExecutionWitness "debug_executionWitness" Query,
    DebugGenerateWitness "debug_generateWitness" Query,
    DebugGenerateBlockWitness "debug_generateBlockWitness" Query,
    // The allow-list of reads that the execution client answers for us: never anything that changes it, signs, or costs it much.
    GetHeaderByNumber "eth_getHeaderByNumber" Proxy,
    GetHeaderByHash "eth_getHeaderByHash" Proxy,
    GetRawTransactionByBlockHashAndIndex "eth_getRawTransactionByBlockHashAndIndex" Proxy,
    GetRawTransactionByBlockNumberAndIndex "eth_getRawTransactionByBlockNumberAndIndex" Proxy,
}

impl Method {
    /// Whether the answer comes from the state: balances, code, slots, what a call does, proofs, witnesses.
    #[must_use]
    pub fn reads_state(self) -> bool {
        matches!(
            self,
            Self::GetBalance
                | Self::GetTransactionCount
                | Self::GetCode
                | Self::GetStorageAt
                | Self::Call
                | Self::EstimateGas
                | Self::CreateAccessList
                | Self::GetProof
                | Self::DebugExecutionWitness
                | Self::DebugGenerateWitness
                | Self::DebugGenerateBlockWitness
        )
    }

    /// Whether the method belongs to the namespace that `run` serves only when it is enabled.
    #[must_use]
    pub fn is_debug(self) -> bool {
        self.name().starts_with("debug_")
    }

    /// Whether the method shows what others have in the pool, which `run` does only when it is enabled.
    #[must_use]
    pub fn is_pool_content(self) -> bool {
        matches!(self, Self::TxpoolContent | Self::TxpoolContentFrom | Self::TxpoolInspect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_methods_and_nothing_else_does() {
        for &method in Method::ALL {
            assert_eq!(Method::from_name(method.name().as_bytes()), Some(method));
        }
        for name in [&b""[..], b"eth_chainid", b"eth_chainId ", b"eth_", b"\xff", b"eth_sendTransaction"] {
            assert_eq!(Method::from_name(name), None);
        }
    }
}
