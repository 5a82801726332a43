//! One zstd frame and nothing else: its header is read by hand, so that what it claims is bounded before anything is reserved.
//!
//! Source: RFC 8878, section 3.1.1. Owner core: any; each thread keeps one context for either way.

use std::cell::RefCell;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, ResetDirective, find_frame_compressed_size};

use super::{BODY_BYTES_MAX, WINDOW_BYTES_MAX};
use crate::primitives::Bytes;

/// The command line's own default: higher levels gain little on hashes and signatures.
const LEVEL: i32 = 3;
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Largest window of a decoder, as a power of two.
const WINDOW_LOG_MAX: u32 = 23;
const _: () = assert!(1 << WINDOW_LOG_MAX == WINDOW_BYTES_MAX);

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    #[error("the body is no zstd frame: it begins with other bytes, or ends within the frame's header")]
    Header,
    #[error("the frame's header has its reserved bit set")]
    Reserved,
    #[error("the frame names a dictionary")]
    Dictionary,
    #[error("the frame does not say how long its content is")]
    ContentSizeMissing,
    #[error("the frame says that its content has {bytes} bytes, at most {BODY_BYTES_MAX} are allowed")]
    ContentSize { bytes: u64 },
    #[error("the frame needs a window of {bytes} bytes, at most {WINDOW_BYTES_MAX} are allowed")]
    Window { bytes: u64 },
    #[error("{bytes} bytes stand behind the frame")]
    TrailingBytes { bytes: usize },
    #[error("the frame is corrupt, or cut short")]
    Corrupt,
    #[error("the frame's content has {found} bytes, its header says {claimed}")]
    ContentDiffers { found: usize, claimed: usize },
}

impl FrameFault {
    /// The stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Header => "frame_header",
            Self::Reserved => "frame_reserved",
            Self::Dictionary => "frame_dictionary",
            Self::ContentSizeMissing => "frame_content_size_missing",
            Self::ContentSize { .. } => "frame_content_size",
            Self::Window { .. } => "frame_window",
            Self::TrailingBytes { .. } => "frame_trailing_bytes",
            Self::Corrupt => "frame_corrupt",
            Self::ContentDiffers { .. } => "frame_content_differs",
        }
    }
}

thread_local! {
    static COMPRESSOR: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// One frame of `body`; `None` when the library cannot, which no input brings about.
pub fn compress(body: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let ctx = kept.get_or_insert_with(CCtx::create);
        ctx.reset(ResetDirective::SessionAndParameters).ok()?;
        ctx.set_parameter(CParameter::CompressionLevel(LEVEL)).ok()?;
        ctx.set_parameter(CParameter::WindowLog(WINDOW_LOG_MAX.min(21))).ok()?;
        let mut frame = Vec::with_capacity(zstd::zstd_safe::compress_bound(body.len()));
        ctx.compress2(&mut frame, body).ok()?;
        Some(frame)
    })
}

/// The content of a frame that fills `bytes` exactly.
pub fn decompress(bytes: &[u8]) -> Result<Bytes, FrameFault> {
    let claimed = content_bytes(bytes)?;
    let frame_bytes = find_frame_compressed_size(bytes).map_err(|_| FrameFault::Corrupt)?;
    if frame_bytes < bytes.len() {
        return Err(FrameFault::TrailingBytes { bytes: bytes.len() - frame_bytes });
    }
    let mut content = Vec::with_capacity(claimed);
    let found = DECOMPRESSOR.with_borrow_mut(|kept| {
        let ctx = kept.get_or_insert_with(DCtx::create);
        // Whatever the last frame left, a corrupt one too.
        ctx.reset(ResetDirective::SessionAndParameters)?;
        ctx.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        ctx.decompress(&mut content, bytes)
    });
    let found = found.map_err(|_| FrameFault::Corrupt)?;
    if found != claimed {
        return Err(FrameFault::ContentDiffers { found, claimed });
    }
    Ok(content.into())
}

/// What the frame's header says of its content's length, when everything in it is allowed.
fn content_bytes(bytes: &[u8]) -> Result<usize, FrameFault> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(FrameFault::Header)?;
    let (&descriptor, mut rest) = rest.split_first().ok_or(FrameFault::Header)?;
    if descriptor & 0x08 != 0 {
        return Err(FrameFault::Reserved);
    }
    if descriptor & 0x03 != 0 {
        return Err(FrameFault::Dictionary);
    }
    let is_single_segment = descriptor & 0x20 != 0;
    let mut window_bytes = 0;
    if !is_single_segment {
        let (&window, after) = rest.split_first().ok_or(FrameFault::Header)?;
        let base = 1_u64 << (10 + (window >> 3));
        window_bytes = base + base / 8 * u64::from(window & 7);
        rest = after;
    }
    let field_bytes = match descriptor >> 6 {
        0 if !is_single_segment => return Err(FrameFault::ContentSizeMissing),
        0 => 1,
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let field = rest.get(..field_bytes).ok_or(FrameFault::Header)?;
    let mut size = field.iter().rev().fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
    if field_bytes == 2 {
        size += 256;
    }
    if is_single_segment {
        window_bytes = size;
    }
    if size > BODY_BYTES_MAX as u64 {
        return Err(FrameFault::ContentSize { bytes: size });
    }
    if window_bytes > WINDOW_BYTES_MAX {
        return Err(FrameFault::Window { bytes: window_bytes });
    }
    Ok(size as usize) // At most `BODY_BYTES_MAX`.
}
