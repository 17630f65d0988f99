//! What can be known of an archive from its bytes: whether they are an archive, and a whole one.
//!
//! Names and lengths are what a source says. The two checks here are of what it sent:
//!
//! * [`FrameWalk`] follows the headers of zstd frames and blocks while a body passes. It looks at
//!   a few bytes in 128 KiB, so it costs nothing, and finds bodies that end early, that are filled
//!   up with something else, and that were never an archive.
//! * [`decode`] decompresses a body and follows the members of the tar file in it. It takes as
//!   long as decompressing does, and finds in addition what is wrong inside of blocks.
//!
//! # What they leave out
//!
//! Neither reads an account, and neither knows the hash in an archive's name: that is of the state
//! that a node has after loading it. Nodes write frames without a checksum, so a changed byte in
//! an account file is found by nothing short of a node.

mod decode;
mod frames;
mod members;
mod pieces;

#[cfg(test)]
mod tests;

pub use decode::{Unsound, decode, looks_inside};
pub use frames::FrameWalk;
pub use members::Member;

/// What is wrong with an archive's bytes. Offsets are in bytes: of the body where it says nothing
/// else, of the tar file that it decompresses to where it names the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Nothing at all, or only frames that decoders skip.
    #[error("there is no zstd frame in it")]
    NoFrame,
    /// Something else stands where a frame would begin.
    #[error("no zstd frame begins at byte {at}")]
    NotAFrame {
        /// Where.
        at: u64,
    },
    /// A format that is not defined yet.
    #[error("the zstd frame header at byte {at} has its reserved bit set")]
    ReservedBit {
        /// Where its descriptor is.
        at: u64,
    },
    /// Clients have no dictionary.
    #[error("the zstd frame header at byte {at} demands a dictionary")]
    Dictionary {
        /// Where what follows its descriptor is.
        at: u64,
    },
    /// Clients give a frame less memory.
    #[error("the zstd frame header at byte {at} demands a window above 128 MiB")]
    Window {
        /// Where what follows its descriptor is.
        at: u64,
    },
    /// A format that is not defined yet.
    #[error("the zstd block at byte {at} is of the reserved type")]
    ReservedBlock {
        /// Where its header is.
        at: u64,
    },
    /// More than the frame's header allows.
    #[error("the zstd block at byte {at} is larger than its frame allows")]
    LargeBlock {
        /// Where its header is.
        at: u64,
    },
    /// A part is missing at the end.
    #[error("it ends at byte {at}, inside a zstd frame")]
    CutShort {
        /// The length of the file.
        at: u64,
    },
    /// The headers of the frame are right and what is between them is not, or the frame's checksum
    /// or its content size says so.
    #[error("it does not decompress after byte {at}")]
    Garbled {
        /// Up to where the decoder had taken it.
        at: u64,
    },
    /// More than any archive.
    #[error("it decompresses to more than an archive of its size can hold, up to byte {at}")]
    Inflated {
        /// Up to where it was read.
        at: u64,
    },
    /// Something else stands where a member would begin.
    #[error("no member begins at byte {at} of the tar")]
    NotAMember {
        /// Where.
        at: u64,
    },
    /// Another kind of tar, or the archive of another slot.
    #[error("the tar has no {member} up to its byte {at}")]
    Missing {
        /// What an archive has.
        member: Member,
        /// Where something else comes instead.
        at: u64,
    },
    /// A part is missing at the end.
    #[error("the tar ends at its byte {at}, inside a member")]
    TarCutShort {
        /// The length of the file.
        at: u64,
    },
    /// Members may be missing at the end.
    #[error("the tar ends at its byte {at}, without the mark of its end")]
    NoEnd {
        /// The length of the file.
        at: u64,
    },
    /// Two archives in one, for example.
    #[error("the tar goes on at its byte {at}, after the mark of its end")]
    AfterEnd {
        /// Where there is something.
        at: u64,
    },
}
