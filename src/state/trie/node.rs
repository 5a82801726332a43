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

    /// Appends the slot to the RLP of the parent.
    fn write(self, out: &mut Vec<u8>) {
        let bytes = key_bytes(&self.words);
        if self.embedded {
            out.extend_from_slice(&bytes[..embedded_bytes(&bytes)]);
        } else {
            let mut item = [0xa0; 33];
            item[1..].copy_from_slice(bytes.as_slice());
            out.extend_from_slice(&item);
        }
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
                let (children, rest) = words[1..].split_at_checked(count)?;
                let hashes = rest.as_chunks::<4>().0.get(..count)?;
                Node::Branch(Branch { mask, embedded: (header >> 32) as u16, children, hashes })
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
            Node::Branch(branch) => 1 + 5 * branch.children.len(),
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
        match self {
            Node::Branch(branch) => encode_branch(branch, out),
            Node::Extension(extension) => {
                let mut prefix = [0; 33];
                let prefix = hex_prefix(&extension.path, depth..extension.end, 0, &mut prefix);
                list_header(string_bytes(prefix) + extension.child.slot.rlp_bytes(), out);
                string(prefix, out);
                extension.child.slot.write(out);
            }
            Node::Account(leaf) => {
                let mut value = [0; 112];
                encode_leaf(&leaf.key, depth, account_rlp(&leaf.account, &mut value), out);
            }
            Node::Slot(leaf) => {
                let mut value = [0; 33];
                encode_leaf(&leaf.key, depth, integer_rlp(&leaf.value.to_be_bytes::<32>(), &mut value), out);
            }
            Node::Code(leaf) => encode_leaf(&leaf.key, depth, key_bytes(&leaf.key).as_slice(), out),
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
    words.push(KIND_ACCOUNT | flags);
    words.extend_from_slice(&leaf.key);
    words.push(leaf.account.nonce);
    words.extend_from_slice(&u256_words(leaf.account.balance_wei));
    if has_code {
        words.extend_from_slice(&key_words(&leaf.account.code_hash));
    }
    if has_storage {
        words.push(leaf.storage);
        words.extend_from_slice(&key_words(&leaf.account.storage_root));
    }
}

pub fn write_slot(leaf: &SlotLeaf, words: &mut Vec<u64>) {
    words.push(KIND_SLOT);
    words.extend_from_slice(&leaf.key);
    words.extend_from_slice(&u256_words(leaf.value));
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

fn encode_branch(branch: &Branch<'_>, out: &mut Vec<u8>) {
    let count = branch.children.len();
    let payload_bytes = if branch.embedded == 0 {
        33 * count + WIDTH - count + 1
    } else {
        (0..WIDTH)
            .map(|nibble| branch.child(nibble))
            .map(|link| if link.node == 0 { 1 } else { link.slot.rlp_bytes() })
            .sum::<usize>()
            + 1
    };
    list_header(payload_bytes, out);
    let mut buffer = [0x80; 33 * WIDTH + 1];
    let mut end = 0;
    let mut ordinal = 0;
    for nibble in 0..WIDTH {
        if branch.mask >> nibble & 1 == 0 {
            end += 1;
            continue;
        }
        let bytes = key_bytes(&branch.hashes[ordinal]);
        ordinal += 1;
        if branch.embedded >> nibble & 1 == 0 {
            buffer[end] = 0xa0;
            buffer[end + 1..end + 33].copy_from_slice(bytes.as_slice());
            end += 33;
        } else {
            let len = embedded_bytes(&bytes);
            buffer[end..end + len].copy_from_slice(&bytes[..len]);
            end += len;
        }
    }
    debug_assert_eq!(end + 1, payload_bytes);
    out.extend_from_slice(&buffer[..=end]);
}

fn encode_leaf(key: &Key, depth: usize, value: &[u8], out: &mut Vec<u8>) {
    let mut prefix = [0; 33];
    let prefix = hex_prefix(key, depth..KEY_NIBBLES, 0x20, &mut prefix);
    list_header(string_bytes(prefix) + string_bytes(value), out);
    string(prefix, out);
    string(value, out);
}

/// RLP of `[nonce, balance, storage root, code hash]`.
pub fn account_rlp<'a>(account: &Account, out: &'a mut [u8; 112]) -> &'a [u8] {
    let mut nonce = [0; 9];
    let nonce = integer_rlp(&account.nonce.to_be_bytes(), &mut nonce);
    let mut balance = [0; 33];
    let balance = integer_rlp(&account.balance_wei.to_be_bytes::<32>(), &mut balance);
    let payload_bytes = nonce.len() + balance.len() + 66;
    // At least 68 bytes: always the long form with one length byte.
    out[0] = 0xf8;
    out[1] = payload_bytes as u8;
    let mut end = 2;
    for part in [nonce, balance, &[0xa0], account.storage_root.as_slice(), &[0xa0], account.code_hash.as_slice()] {
        out[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    &out[..end]
}

/// RLP of a big-endian integer of up to 32 bytes.
fn integer_rlp<'a>(bytes: &[u8], out: &'a mut [u8]) -> &'a [u8] {
    let skip = bytes.iter().take_while(|byte| **byte == 0).count();
    match &bytes[skip..] {
        [byte] if *byte < 0x80 => {
            out[0] = *byte;
            &out[..1]
        }
        digits => {
            out[0] = 0x80 + digits.len() as u8;
            out[1..=digits.len()].copy_from_slice(digits);
            &out[..=digits.len()]
        }
    }
}

/// Compact encoding of the nibbles `range` of a key (yellow paper, appendix C).
fn hex_prefix<'a>(key: &Key, range: std::ops::Range<usize>, flag: u8, out: &'a mut [u8; 33]) -> &'a [u8] {
    let count = range.len();
    let mut start = range.start;
    out[0] = flag;
    if count % 2 == 1 {
        out[0] |= 0x10 | nibble(key, start) as u8;
        start += 1;
    }
    // What is left is even: shift the key so that it starts at a byte of the output.
    let bytes = key_bytes(key);
    let pairs = count / 2;
    if start.is_multiple_of(2) {
        out[1..=pairs].copy_from_slice(&bytes[start / 2..start / 2 + pairs]);
    } else {
        for (byte, pair) in out[1..=pairs].iter_mut().zip(bytes[start / 2..].windows(2)) {
            *byte = pair[0] << 4 | pair[1] >> 4;
        }
    }
    &out[..=pairs]
}

fn string_bytes(string: &[u8]) -> usize {
    match string {
        [byte] if *byte < 0x80 => 1,
        _ => string.len() + if string.len() < 56 { 1 } else { 2 },
    }
}

/// Strings here are under 256 bytes.
fn string(string: &[u8], out: &mut Vec<u8>) {
    if string.len() >= 56 {
        out.extend_from_slice(&[0xb8, string.len() as u8]);
    } else if string_bytes(string) > 1 {
        out.push(0x80 + string.len() as u8);
    }
    out.extend_from_slice(string);
}

/// Lists here are under 65,536 bytes.
fn list_header(payload_bytes: usize, out: &mut Vec<u8>) {
    match payload_bytes {
        0..56 => out.push(0xc0 + payload_bytes as u8),
        56..256 => out.extend_from_slice(&[0xf8, payload_bytes as u8]),
        _ => out.extend_from_slice(&[0xf9, (payload_bytes >> 8) as u8, payload_bytes as u8]),
    }
}
