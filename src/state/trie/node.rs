//! Layout of trie nodes in 64-bit words, and their RLP.
//!
//! A node names its children by position and keeps their hashes, so a read follows positions only, and a parent is hashed
//! without touching its children. Keys and hashes are four words, most significant byte first, so that words compare like keys.
//! Paths are absolute: a leaf holds its whole key and an extension the key prefix up to its end, so a leaf that moves to
//! another depth stays where it is and only its hash changes.
//!
//! | kind | words |
//! |---|---|
//! | branch | header, `n` child positions, `n` × 4 hash words |
//! | extension | header, 4 path, child position, 4 hash words |
//! | account leaf | header, 4 key, nonce, 4 balance, \[4 code hash\], \[storage position, 4 storage root\] |
//! | slot leaf | header, 4 key, 4 value |
//! | code leaf | header, 4 key (the code's hash), the code in words of 8 bytes, little-endian, the last padded with zeros |
//!
//! | header bits | meaning |
//! |---|---|
//! | 0–2 | kind |
//! | 3–15 | branch: check of its hashes, where the space has checks |
//! | 8, 9 | account leaf: has code, has storage; extension: 8 = child embedded |
//! | 8–31 | code leaf: bytes of code |
//! | 16–31 | branch: children present; extension: start (16–23) and end (24–31) of its path in nibbles |
//! | 32–47 | branch: children embedded (RLP under 32 bytes, kept in the hash words from the left) |
//! | 48–63 | branch: check of header and child positions, where the space has checks |
//! | 32–63 | others: check of the whole node, where the space has checks |

use alloy_primitives::{B256, U256};

use crate::state::{Account, CODE_HASH_EMPTY, ROOT_EMPTY};

/// Hashed key of an account or slot.
pub type Key = [u64; 4];

pub const KEY_NIBBLES: usize = 64;
/// Children of a branch.
pub const WIDTH: usize = 16;
/// A branch with 16 hashes: 16 × 33 + 1 and a header of 3.
pub const NODE_RLP_BYTES_MAX: usize = 532;

const KIND_BRANCH: u64 = 1;
const KIND_EXTENSION: u64 = 2;
const KIND_ACCOUNT: u64 = 3;
const KIND_SLOT: u64 = 4;
const KIND_CODE: u64 = 5;
const KIND_MASK: u64 = 7;

const FLAG_CODE: u64 = 1 << 8;
const FLAG_STORAGE: u64 = 1 << 9;
const FLAG_CHILD_EMBEDDED: u64 = 1 << 8;

const EXTENSION_WORDS: usize = 10;
const ACCOUNT_WORDS_MIN: usize = 10;
const SLOT_WORDS: usize = 9;
const CODE_WORDS_MIN: usize = 5;
/// Longest code that its header can tell: 16 MiB, far above what any fork allows.
pub const CODE_BYTES_MAX: usize = (1 << 24) - 1;

/// Position of a node: segment in the upper, word in the lower half. 0 = no node.
pub type Position = u64;

/// How a parent names a child: the hash of its RLP, or the RLP when shorter than 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub words: [u64; 4],
    pub embedded: bool,
}

impl Slot {
    pub fn hash(hash: B256) -> Self {
        Self { words: key_words(&hash), embedded: false }
    }

    /// The slot of a node of which RLP and hash are known.
    pub fn of(rlp: &[u8], hash: B256) -> Self {
        if rlp.len() >= 32 {
            return Self::hash(hash);
        }
        let mut bytes = B256::ZERO;
        bytes[..rlp.len()].copy_from_slice(rlp);
        Self { words: key_words(&bytes), embedded: true }
    }

    /// Writes the slot into the RLP of the parent; answers its length there. `out` has 33 bytes or more.
    #[inline]
    fn write(self, out: &mut [u8]) -> usize {
        let bytes = key_bytes(&self.words);
        if self.embedded {
            out[..32].copy_from_slice(bytes.as_slice());
            return embedded_bytes(&bytes);
        }
        let out = &mut out[..33];
        out[0] = 0xa0;
        out[1..].copy_from_slice(bytes.as_slice());
        33
    }

    fn rlp_bytes(&self) -> usize {
        if self.embedded { embedded_bytes(&key_bytes(&self.words)) } else { 33 }
    }

    /// RLP of an embedded node.
    pub fn embedded_rlp(&self) -> Option<Vec<u8>> {
        let bytes = key_bytes(&self.words);
        self.embedded.then(|| bytes[..embedded_bytes(&bytes)].to_vec())
    }
}

/// Length of the short list that `bytes` starts with.
fn embedded_bytes(bytes: &B256) -> usize {
    usize::from(bytes[0].saturating_sub(0xc0)).min(30) + 1
}

/// A child as its parent names it. `node` 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub node: Position,
    pub slot: Slot,
}

/// A node read from its words.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    Branch(Branch<'a>),
    Extension(Extension),
    Account(AccountLeaf),
    Slot(SlotLeaf),
    Code(CodeLeaf<'a>),
}

#[derive(Clone, Copy, Debug)]
pub struct Branch<'a> {
    pub mask: u16,
    pub embedded: u16,
    pub children: &'a [Position],
    pub hashes: &'a [[u64; 4]],
    /// All of it.
    pub words: &'a [u64],
}

#[derive(Clone, Copy, Debug)]
pub struct Extension {
    /// Nibbles `0..end` are the path from the root; `start..end` the extension's own.
    pub path: Key,
    pub start: usize,
    pub end: usize,
    pub child: Link,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountLeaf {
    pub key: Key,
    pub account: Account,
    pub storage: Position,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotLeaf {
    pub key: Key,
    pub value: U256,
}

/// A code, in the trie of codes. Its hash is its key, and what its leaf's RLP holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeLeaf<'a> {
    pub key: Key,
    pub code_bytes: usize,
    pub words: &'a [u64],
}

impl CodeLeaf<'_> {
    #[must_use]
    pub fn code(&self) -> Vec<u8> {
        let mut code: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        code.truncate(self.code_bytes);
        code
    }
}

impl Branch<'_> {
    /// Position of a child; 0 = none.
    #[inline]
    pub fn child_node(&self, nibble: usize) -> Position {
        if self.mask >> nibble & 1 == 0 { 0 } else { self.children[child_ordinal(self.mask, nibble)] }
    }

    pub fn child(&self, nibble: usize) -> Link {
        if self.mask >> nibble & 1 == 0 {
            return Link::default();
        }
        let ordinal = child_ordinal(self.mask, nibble);
        let slot = Slot { words: self.hashes[ordinal], embedded: self.embedded >> nibble & 1 == 1 };
        Link { node: self.children[ordinal], slot }
    }
}

impl<'a> Node<'a> {
    /// Reads the node that `words` starts with; `None` when it is cut short or of no known kind.
    #[inline(always)]
    pub fn read(words: &'a [u64]) -> Option<Self> {
        let header = *words.first()?;
        Some(match header & KIND_MASK {
            KIND_BRANCH => {
                let mask = (header >> 16) as u16;
                let count = mask.count_ones() as usize;
                let words = words.get(..1 + 5 * count)?;
                let (children, rest) = words[1..].split_at(count);
                let hashes = rest.as_chunks::<4>().0;
                Node::Branch(Branch { mask, embedded: (header >> 32) as u16, children, hashes, words })
            }
            KIND_EXTENSION => Node::Extension(read_extension(header, words.get(..EXTENSION_WORDS)?)),
            KIND_ACCOUNT => Node::Account(read_account(header, words)?),
            KIND_SLOT => {
                let words = words.get(..SLOT_WORDS)?;
                Node::Slot(SlotLeaf { key: four(words, 1), value: word_u256(&four(words, 5)) })
            }
            KIND_CODE => {
                let code_bytes = (header >> 8) as usize & CODE_BYTES_MAX;
                let (head, rest) = words.split_at_checked(CODE_WORDS_MIN)?;
                Node::Code(CodeLeaf { key: four(head, 1), code_bytes, words: rest.get(..code_bytes.div_ceil(8))? })
            }
            _ => return None,
        })
    }

    /// How many words the node takes.
    pub fn word_count(&self) -> usize {
        match self {
            Node::Branch(branch) => branch.words.len(),
            Node::Extension(_) => EXTENSION_WORDS,
            Node::Account(leaf) => {
                let code = leaf.account.code_hash != CODE_HASH_EMPTY;
                ACCOUNT_WORDS_MIN + 4 * usize::from(code) + 5 * usize::from(leaf.storage != 0)
            }
            Node::Slot(_) => SLOT_WORDS,
            Node::Code(leaf) => CODE_WORDS_MIN + leaf.words.len(),
        }
    }

    /// Appends the node's RLP as it is at `depth` nibbles below the root.
    pub fn encode(&self, depth: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + NODE_RLP_BYTES_MAX, 0);
        let place = out.last_chunk_mut::<NODE_RLP_BYTES_MAX>().expect("it has just been made so long");
        let bytes = self.encode_at(depth, place);
        out.truncate(start + bytes);
    }

    /// Writes the node's RLP as it is at `depth` nibbles below the root, and anything behind it; answers its length.
    pub fn encode_at(&self, depth: usize, out: &mut [u8; NODE_RLP_BYTES_MAX]) -> usize {
        match self {
            Node::Branch(branch) => encode_branch(branch, out),
            Node::Extension(extension) => {
                let mut prefix = [0; 40];
                let prefix_bytes = hex_prefix(&extension.path, depth..extension.end, 0, &mut prefix);
                let child_bytes = extension.child.slot.rlp_bytes();
                let mut end = list_header(string_bytes(&prefix[..prefix_bytes]) + child_bytes, out);
                end += string(&prefix[..prefix_bytes], &mut out[end..]);
                end + extension.child.slot.write(&mut out[end..])
            }
            Node::Account(leaf) => {
                let mut value = [0; VALUE_BYTES];
                let value_bytes = account_rlp(&leaf.account, &mut value);
                encode_leaf(&leaf.key, depth, &value, value_bytes, out)
            }
            Node::Slot(leaf) => {
                let mut value = [0; VALUE_BYTES];
                let value_bytes = integer_rlp(&u256_words(leaf.value), &mut value);
                encode_leaf(&leaf.key, depth, &value, value_bytes, out)
            }
            Node::Code(leaf) => {
                let mut value = [0; VALUE_BYTES];
                value[..32].copy_from_slice(key_bytes(&leaf.key).as_slice());
                encode_leaf(&leaf.key, depth, &value, 32, out)
            }
        }
    }
}

fn read_extension(header: u64, words: &[u64]) -> Extension {
    let slot = Slot { words: four(words, 6), embedded: header & FLAG_CHILD_EMBEDDED != 0 };
    Extension {
        path: four(words, 1),
        start: usize::from((header >> 16) as u8),
        end: usize::from((header >> 24) as u8),
        child: Link { node: words[5], slot },
    }
}

#[inline]
fn read_account(header: u64, words: &[u64]) -> Option<AccountLeaf> {
    let (head, mut rest) = words.split_at_checked(ACCOUNT_WORDS_MIN)?;
    let mut code_hash = CODE_HASH_EMPTY;
    if header & FLAG_CODE != 0 {
        let (words, after) = rest.split_at_checked(4)?;
        code_hash = key_bytes(&four(words, 0));
        rest = after;
    }
    let mut storage = 0;
    let mut storage_root = ROOT_EMPTY;
    if header & FLAG_STORAGE != 0 {
        let words = rest.get(..5)?;
        storage = words[0];
        storage_root = key_bytes(&four(words, 1));
    }
    let account = Account { nonce: head[5], balance_wei: word_u256(&four(head, 6)), code_hash, storage_root };
    Some(AccountLeaf { key: four(head, 1), account, storage })
}

/// The child on the way to `nibble` when `words` starts with a branch: what a read needs of it. `None`: no branch.
#[inline]
pub fn branch_child(words: &[u64], nibble: usize) -> Option<Position> {
    let header = *words.first()?;
    if header & KIND_MASK != KIND_BRANCH {
        return None;
    }
    let mask = (header >> 16) as u16;
    if mask >> nibble & 1 == 0 {
        return Some(0);
    }
    words.get(1 + child_ordinal(mask, nibble)).copied()
}

/// How many words a branch takes; 0 when `words` starts with something else.
#[inline]
pub fn branch_words(words: &[u64]) -> usize {
    match words.first() {
        Some(header) if header & KIND_MASK == KIND_BRANCH => 1 + 5 * ((header >> 16) as u16).count_ones() as usize,
        _ => 0,
    }
}

/// Appends a branch whose slots are written later ([`set_slot`]) or known.
pub fn write_branch(children: &[(usize, Link)], words: &mut Vec<u64>) {
    let mut header = KIND_BRANCH;
    for (nibble, link) in children {
        header |= 1 << (16 + nibble) | u64::from(link.slot.embedded) << (32 + nibble);
    }
    words.push(header);
    words.extend(children.iter().map(|(_, link)| link.node));
    for (_, link) in children {
        words.extend_from_slice(&link.slot.words);
    }
}

pub fn write_extension(extension: &Extension, words: &mut Vec<u64>) {
    let mut header = KIND_EXTENSION | (extension.start as u64) << 16 | (extension.end as u64) << 24;
    if extension.child.slot.embedded {
        header |= FLAG_CHILD_EMBEDDED;
    }
    words.push(header);
    words.extend_from_slice(&extension.path);
    words.push(extension.child.node);
    words.extend_from_slice(&extension.child.slot.words);
}

pub fn write_account(leaf: &AccountLeaf, words: &mut Vec<u64>) {
    let has_code = leaf.account.code_hash != CODE_HASH_EMPTY;
    let has_storage = leaf.storage != 0;
    let flags = if has_code { FLAG_CODE } else { 0 } | if has_storage { FLAG_STORAGE } else { 0 };
    let mut node = [0; ACCOUNT_WORDS_MIN + 9];
    node[0] = KIND_ACCOUNT | flags;
    node[1..5].copy_from_slice(&leaf.key);
    node[5] = leaf.account.nonce;
    node[6..10].copy_from_slice(&u256_words(leaf.account.balance_wei));
    let mut end = ACCOUNT_WORDS_MIN;
    if has_code {
        node[end..end + 4].copy_from_slice(&key_words(&leaf.account.code_hash));
        end += 4;
    }
    if has_storage {
        node[end] = leaf.storage;
        node[end + 1..end + 5].copy_from_slice(&key_words(&leaf.account.storage_root));
        end += 5;
    }
    words.extend_from_slice(&node[..end]);
}

pub fn write_slot(leaf: &SlotLeaf, words: &mut Vec<u64>) {
    let mut node = [0; SLOT_WORDS];
    node[0] = KIND_SLOT;
    node[1..5].copy_from_slice(&leaf.key);
    node[5..].copy_from_slice(&u256_words(leaf.value));
    words.extend_from_slice(&node);
}

/// `code` has at most [`CODE_BYTES_MAX`] bytes.
pub fn write_code(key: &Key, code: &[u8], words: &mut Vec<u64>) {
    assert!(code.len() <= CODE_BYTES_MAX, "no fork allows such a code");
    words.push(KIND_CODE | (code.len() as u64) << 8);
    words.extend_from_slice(key);
    let (whole, rest) = code.as_chunks::<8>();
    words.extend(whole.iter().map(|bytes| u64::from_le_bytes(*bytes)));
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        words.push(u64::from_le_bytes(last));
    }
}

/// Writes the slot of a child into the branch or extension that `words` starts with. `nibble` is ignored by an extension.
pub fn set_slot(words: &mut [u64], nibble: usize, slot: Slot) {
    let header = words[0];
    if header & KIND_MASK == KIND_EXTENSION {
        words[6..10].copy_from_slice(&slot.words);
        words[0] = if slot.embedded { header | FLAG_CHILD_EMBEDDED } else { header & !FLAG_CHILD_EMBEDDED };
        return;
    }
    let mask = (header >> 16) as u16;
    let start = 1 + mask.count_ones() as usize + 4 * child_ordinal(mask, nibble);
    words[start..start + 4].copy_from_slice(&slot.words);
    let bit = 1 << (32 + nibble);
    words[0] = if slot.embedded { header | bit } else { header & !bit };
}

/// Changes the position of the child `ordinal` (an extension's only child, an account's storage) in the node that `words` starts with.
pub fn set_child(words: &mut [u64], ordinal: usize, child: Position) {
    let header = words[0];
    let place = match header & KIND_MASK {
        KIND_BRANCH => 1 + ordinal,
        KIND_EXTENSION => 5,
        _ => ACCOUNT_WORDS_MIN + if header & FLAG_CODE != 0 { 4 } else { 0 },
    };
    words[place] = child;
}

/// How many words the node takes that `words` starts with; `None` when it is of no known kind.
#[inline]
#[must_use]
pub fn node_words(words: &[u64]) -> Option<usize> {
    let header = *words.first()?;
    Some(match header & KIND_MASK {
        KIND_BRANCH => 1 + 5 * ((header >> 16) as u16).count_ones() as usize,
        KIND_EXTENSION => EXTENSION_WORDS,
        KIND_ACCOUNT => {
            let code = if header & FLAG_CODE != 0 { 4 } else { 0 };
            let storage = if header & FLAG_STORAGE != 0 { 5 } else { 0 };
            ACCOUNT_WORDS_MIN + code + storage
        }
        KIND_SLOT => SLOT_WORDS,
        KIND_CODE => CODE_WORDS_MIN + ((header >> 8) as usize & CODE_BYTES_MAX).div_ceil(8),
        _ => return None,
    })
}

/// Where the child positions lie in the node that `words` starts with; empty for what has none, or is of no known kind.
#[inline]
#[must_use]
pub fn child_words(words: &[u64]) -> std::ops::Range<usize> {
    let header = words.first().copied().unwrap_or_default();
    match header & KIND_MASK {
        KIND_BRANCH => 1..1 + ((header >> 16) as u16).count_ones() as usize,
        KIND_EXTENSION => 5..6,
        KIND_ACCOUNT if header & FLAG_STORAGE != 0 => {
            let place = ACCOUNT_WORDS_MIN + if header & FLAG_CODE != 0 { 4 } else { 0 };
            place..place + 1
        }
        _ => 0..0,
    }
}

/// Whether `words` starts with a branch.
#[inline]
#[must_use]
pub fn is_branch(header: u64) -> bool {
    header & KIND_MASK == KIND_BRANCH
}

pub fn child_ordinal(mask: u16, nibble: usize) -> usize {
    (mask & ((1 << nibble) - 1)).count_ones() as usize
}

fn four(words: &[u64], start: usize) -> [u64; 4] {
    [words[start], words[start + 1], words[start + 2], words[start + 3]]
}

pub fn key_words(bytes: &B256) -> Key {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_be_bytes(*bytes);
    }
    words
}

pub fn key_bytes(words: &Key) -> B256 {
    let mut bytes = B256::ZERO;
    for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_be_bytes();
    }
    bytes
}

fn u256_words(value: U256) -> [u64; 4] {
    let [a, b, c, d] = value.into_limbs();
    [d, c, b, a]
}

fn word_u256(words: &[u64; 4]) -> U256 {
    U256::from_limbs([words[3], words[2], words[1], words[0]])
}

/// Nibble `index` of a key, from the left.
pub fn nibble(key: &Key, index: usize) -> usize {
    (key[index / 16] >> (60 - 4 * (index % 16)) & 0xf) as usize
}

/// How many leading nibbles two keys share.
pub fn shared_nibbles(a: &Key, b: &Key) -> usize {
    for word in 0..4 {
        let difference = a[word] ^ b[word];
        if difference != 0 {
            return word * 16 + difference.leading_zeros() as usize / 4;
        }
    }
    KEY_NIBBLES
}

fn encode_branch(branch: &Branch<'_>, out: &mut [u8; NODE_RLP_BYTES_MAX]) -> usize {
    if branch.embedded != 0 {
        return encode_branch_embedding(branch, out);
    }
    let count = branch.children.len();
    let payload_bytes = 33 * count + WIDTH - count + 1;
    let start = list_header(payload_bytes, out);
    // An absent child is one byte, so where a child lies follows from how many are before it: no step waits for the one before, and no
    // branch of the processor depends on which children there are.
    out[start..start + payload_bytes].fill(0x80);
    let mut rest = branch.mask;
    for (ordinal, hash) in branch.hashes.iter().enumerate() {
        let nibble = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        let place = start + nibble + 32 * ordinal;
        out[place] = 0xa0;
        out[place + 1..place + 33].copy_from_slice(key_bytes(hash).as_slice());
    }
    start + payload_bytes
}

/// As [`encode_branch`], where some children lie in the branch.
fn encode_branch_embedding(branch: &Branch<'_>, out: &mut [u8; NODE_RLP_BYTES_MAX]) -> usize {
    let links = (0..WIDTH).map(|nibble| branch.child(nibble));
    let item_bytes = |link: Link| if link.node == 0 { 1 } else { link.slot.rlp_bytes() };
    let payload_bytes = links.clone().map(item_bytes).sum::<usize>() + 1;
    let start = list_header(payload_bytes, out);
    let mut end = start;
    for link in links {
        if link.node == 0 {
            out[end] = 0x80;
            end += 1;
        } else if link.slot.embedded {
            // It may be the last one, where 33 bytes would not fit any more.
            let bytes = key_bytes(&link.slot.words);
            let len = embedded_bytes(&bytes);
            out[end..end + len].copy_from_slice(&bytes[..len]);
            end += len;
        } else {
            end += link.slot.write(&mut out[end..]);
        }
    }
    out[end] = 0x80;
    debug_assert_eq!(end + 1 - start, payload_bytes);
    end + 1
}

/// `value` has `value_bytes` bytes.
fn encode_leaf(
    key: &Key,
    depth: usize,
    value: &[u8; VALUE_BYTES],
    value_bytes: usize,
    out: &mut [u8; NODE_RLP_BYTES_MAX],
) -> usize {
    let mut prefix = [0; 40];
    let prefix_bytes = hex_prefix(key, depth..KEY_NIBBLES, 0x20, &mut prefix);
    let value_item_bytes = string_bytes(&value[..value_bytes]);
    let mut end = list_header(string_bytes(&prefix[..prefix_bytes]) + value_item_bytes, out);
    if prefix_bytes > 1 {
        out[end] = 0x80 + prefix_bytes as u8;
        end += 1;
    }
    out[end..end + 40].copy_from_slice(&prefix);
    end += prefix_bytes;
    match value_item_bytes - value_bytes {
        0 => {}
        1 => out[end] = 0x80 + value_bytes as u8,
        _ => out[end..end + 2].copy_from_slice(&[0xb8, value_bytes as u8]),
    }
    end += value_item_bytes - value_bytes;
    // All of it: a copy of a fixed length costs less than one that looks how long it is.
    out[end..end + VALUE_BYTES].copy_from_slice(value);
    end + value_bytes
}

/// Room for the value of a leaf: 110 bytes of an account, or an integer; and for writing 32 bytes from any part of it on.
pub const VALUE_BYTES: usize = 144;

/// RLP of `[nonce, balance, storage root, code hash]`; answers its length.
pub fn account_rlp(account: &Account, out: &mut [u8; VALUE_BYTES]) -> usize {
    // At least 68 bytes: always the long form with one length byte.
    let mut end = 2;
    end += integer_rlp(&[0, 0, 0, account.nonce], &mut out[end..]);
    end += integer_rlp(&u256_words(account.balance_wei), &mut out[end..]);
    for hash in [&account.storage_root, &account.code_hash] {
        out[end] = 0xa0;
        out[end + 1..end + 33].copy_from_slice(hash.as_slice());
        end += 33;
    }
    out[0] = 0xf8;
    out[1] = (end - 2) as u8;
    end
}

/// RLP of an integer of four words, the highest first; answers its length. `out` has 33 bytes or more.
#[inline]
fn integer_rlp(words: &[u64; 4], out: &mut [u8]) -> usize {
    let zeros = match words {
        [0, 0, 0, low] => 192 + low.leading_zeros(),
        [0, 0, low, _] => 128 + low.leading_zeros(),
        [0, low, ..] => 64 + low.leading_zeros(),
        [high, ..] => high.leading_zeros(),
    };
    let skip = zeros as usize / 8;
    let bytes = key_bytes(&shifted(words, 8 * skip));
    let len = 32 - skip;
    let out = &mut out[..33];
    if len == 1 && bytes[0] < 0x80 {
        out[0] = bytes[0];
        return 1;
    }
    out[0] = 0x80 + len as u8;
    out[1..].copy_from_slice(bytes.as_slice());
    1 + len
}

/// Words shifted to the left by `bits` (at most 256), the highest first.
#[inline]
fn shifted(words: &[u64; 4], bits: usize) -> [u64; 4] {
    let (skip, bits) = (bits / 64, bits % 64);
    let word = |index: usize| words.get(index + skip).copied().unwrap_or_default();
    std::array::from_fn(|index| match bits {
        0 => word(index),
        _ => word(index) << bits | word(index + 1) >> (64 - bits),
    })
}

/// Compact encoding of the nibbles `range` of a key (yellow paper, appendix C); answers its length.
fn hex_prefix(key: &Key, range: std::ops::Range<usize>, flag: u8, out: &mut [u8; 40]) -> usize {
    let count = range.len();
    let mut start = range.start;
    out[0] = flag;
    if count % 2 == 1 {
        out[0] |= 0x10 | nibble(key, start) as u8;
        start += 1;
    }
    // What is left is even: shift the key so that it starts at a byte of the output.
    out[1..33].copy_from_slice(key_bytes(&shifted(key, 4 * start)).as_slice());
    1 + count / 2
}

fn string_bytes(string: &[u8]) -> usize {
    match string {
        [byte] if *byte < 0x80 => 1,
        _ => string.len() + if string.len() < 56 { 1 } else { 2 },
    }
}

/// Strings here are under 56 bytes. Answers the length of the item.
fn string(string: &[u8], out: &mut [u8]) -> usize {
    let bytes = string_bytes(string);
    let head = bytes - string.len();
    if head > 0 {
        out[0] = 0x80 + string.len() as u8;
    }
    out[head..bytes].copy_from_slice(string);
    bytes
}

/// Lists here are under 65,536 bytes. Answers the length of the header.
#[inline]
fn list_header(payload_bytes: usize, out: &mut [u8; NODE_RLP_BYTES_MAX]) -> usize {
    match payload_bytes {
        0..56 => {
            out[0] = 0xc0 + payload_bytes as u8;
            1
        }
        56..256 => {
            out[..2].copy_from_slice(&[0xf8, payload_bytes as u8]);
            2
        }
        _ => {
            out[..3].copy_from_slice(&[0xf9, (payload_bytes >> 8) as u8, payload_bytes as u8]);
            3
        }
    }
}
